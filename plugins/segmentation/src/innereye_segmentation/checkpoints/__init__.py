"""Checkpoint files: what their names say, reading them without running code inside, and their packaged form."""
