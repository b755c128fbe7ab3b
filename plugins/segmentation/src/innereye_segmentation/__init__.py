"""PyTorch: networks, checkpoints, the torch runtime, validation."""
