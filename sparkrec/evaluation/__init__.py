"""The temporal hold-out and the metrics."""
