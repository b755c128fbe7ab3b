"""Merging Conda environment files: reading them with line numbers, finding contradictions, writing one file."""
