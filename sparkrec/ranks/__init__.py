"""What all models on Horovod workers share: ranks, snapshots, feed, launch, checkpoints."""
