"""The steps of a job, each kept by the hash of its inputs and settings."""
