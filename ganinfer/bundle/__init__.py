"""The format: read, written, checked, signed, fetched."""
