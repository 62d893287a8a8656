"""Whose images are measured, against what, and the scores."""
