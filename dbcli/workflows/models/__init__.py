"""A run's result in memory: its weights on its base, at the end or at a checkpoint, ready to sample from."""
