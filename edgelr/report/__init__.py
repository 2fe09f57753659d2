"""What is known about a bundle, for machines (JSON) and for people (Markdown, terminal, card)."""
