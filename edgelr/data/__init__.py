"""Texts, images, audio, labels: read and tokenized."""
