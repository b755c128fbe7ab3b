"""Medical images from file to file: everything that needs no network."""

__version__ = "0.1.0"
