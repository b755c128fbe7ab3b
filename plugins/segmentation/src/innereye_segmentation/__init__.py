"""PyTorch: networks, checkpoints, the torch runtime, validation."""

__version__ = "0.1.0"
