"""The commands of the offline jobs: they read words, call functions, and print."""
