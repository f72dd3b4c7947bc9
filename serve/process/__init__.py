"""A serving process: its `options`, its parts put together (`server`), and the `supervisor` of several `worker`s."""
