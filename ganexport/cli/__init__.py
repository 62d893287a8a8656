"""The commands that export and prove, and `gan`, which gathers those of all floors."""
