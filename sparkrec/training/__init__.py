"""Training of the neural models: rails (ranks, snapshots, feed, checkpoints) and the loops."""
