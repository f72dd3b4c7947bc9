"""From a question to an answer: pure, without protobuf, grpc or a transport.

`recommender.Recommender` answers `types.Query` from a `ports.Catalogue` and an index of `indexes`; `fake.fake_model`
makes one without any file. `limits`, `admission` and `call` say which questions come in; `errors` is what can go wrong.
"""
