"""The hybrid of the GRU and the sessions' neighbours."""
