"""Ways for requests to come in. A transport moves messages and knows no recommendation.

`base.Transport` is what each must do, and `choice.choose_transport` takes one: `grpcio` or `native`; `http_gateway`
offers the same methods as JSON beside either, on `http_server`.
"""
