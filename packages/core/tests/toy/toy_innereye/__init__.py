"""A toolbox without any numerical library: weights are JSON, images are lists of numbers, a network is a threshold."""
