"""What a job leaves behind: its folder and lock, the state and the log of each run, and what may be removed."""
