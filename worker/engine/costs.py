"""What a call of so many rows takes, learned while running, per model and shape. Knows no torch."""
