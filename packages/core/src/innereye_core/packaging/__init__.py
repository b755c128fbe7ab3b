"""Making a package: what goes into it, and how it becomes a folder."""
