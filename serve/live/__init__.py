"""Which models are live: loading, swapping, splitting and shadowing them beside requests.

A `manager.ModelManager` changes what a `store.ModelStore` serves; requests read the store alone.
"""
