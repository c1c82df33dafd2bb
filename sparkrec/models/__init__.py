"""The models: ALS-WR, the session-parallel GRU, two towers, popularity."""
