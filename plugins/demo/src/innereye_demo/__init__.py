"""`innereye demo`: the whole life of a model on a real brain MRI."""

__version__ = "0.1.0"
