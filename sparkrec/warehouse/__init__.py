"""The warehouse: its tables, what reads and writes them, and the care of them."""
