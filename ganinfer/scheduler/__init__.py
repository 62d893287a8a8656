"""Many callers, few batches."""
