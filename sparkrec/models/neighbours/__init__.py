"""Item-based and user-based nearest neighbours."""
