"""Where the numbers of a run are sent: Prometheus, MLflow."""
