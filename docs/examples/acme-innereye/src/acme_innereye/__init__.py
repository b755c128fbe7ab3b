"""ACME's own steps for InnerEye Deploy."""
