"""`innereye demo`: the whole life of a model on a real brain MRI."""
