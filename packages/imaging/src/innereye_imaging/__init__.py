"""Medical images from file to file: everything that needs no network."""
