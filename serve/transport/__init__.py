"""Ways for requests to come in. A transport moves messages and knows no recommendation."""
