"""What each step of the road costs at three sizes of data, and how it grows: `make bench-scale`.

This process stays small on purpose: a child's peak memory begins with that of the process that started it.
"""
