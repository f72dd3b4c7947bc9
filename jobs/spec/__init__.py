"""What a job is asked to do: a file in TOML, checked whole before anything runs."""
