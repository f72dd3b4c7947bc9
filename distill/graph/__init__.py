"""The mathematics of frequencies: graphs over users and items, their filters and their spectra."""
