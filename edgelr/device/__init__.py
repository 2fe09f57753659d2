"""What a device has, and what anything costs there."""
