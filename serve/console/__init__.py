"""A page to look at and to change what is served: static files, and a small JSON interface over the services."""
