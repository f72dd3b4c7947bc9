"""A closed-loop load generator: as many requests in flight as asked for, each followed by the next."""
