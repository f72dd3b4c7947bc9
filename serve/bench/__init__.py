"""Load on servers, and what it shows: one generator under `lowpass bench`, for running servers and for models.

`load` asks, `workload` says for whom, and a `windows.Window` is what was seen. `experiments` decides which windows to
ask for; `comparison` does so for several models, each in a child process of `servers`. `report` and `figures` tell.
"""
