"""A serving process: its options, its parts put together, and the supervisor of several."""
