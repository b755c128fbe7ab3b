"""The peers, each as its own users call it."""
