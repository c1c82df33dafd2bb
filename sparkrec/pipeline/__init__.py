"""The night: its stages, their ledger and the order in which they run."""
