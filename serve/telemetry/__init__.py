"""What is told of requests: Prometheus series, traces and log lines, passed on together as a `telemetry.Telemetry`."""
