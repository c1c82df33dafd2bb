"""From models to top-K lists."""
