"""What is exported, wherever it comes from."""
