"""The commands that make and choose bundles: they read words, call functions, and print."""
