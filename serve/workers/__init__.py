"""Several processes that serve on one port, and the process that keeps them up."""
