"""The commands of the online side: they read words, call functions, and print."""
