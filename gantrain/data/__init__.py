"""Pictures as they lie on disks, and the prepared dataset that training reads."""
