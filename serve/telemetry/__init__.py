"""What is told of requests: Prometheus series, traces and log lines."""
