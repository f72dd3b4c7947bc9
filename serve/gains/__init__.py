"""Teacher, student and rivals served in turn on this machine: what was won, and what was not."""
