"""The session-parallel GRU: its networks, their training and their serving."""
