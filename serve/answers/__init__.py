"""From a question to an answer: pure, without protobuf, grpc or a file."""
