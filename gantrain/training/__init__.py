"""The loop, and what it records."""
