"""The commands that need no torch. Only the commands of a floor print."""
