"""The configuration, its checks, and the formats of logs."""
