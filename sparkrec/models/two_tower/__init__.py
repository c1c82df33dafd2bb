"""The two towers: their network, its training and its serving."""
