"""What a new version must be, before a label points to it."""
