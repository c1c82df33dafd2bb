"""Content-based lists."""
