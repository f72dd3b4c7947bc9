"""Which models are live: loading, swapping, splitting and shadowing them beside requests."""
