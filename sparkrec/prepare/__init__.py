"""Pure transforms from events to training tables."""
