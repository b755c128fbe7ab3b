"""AzureML for InnerEye Deploy: its model registry, and its runs."""

__version__ = "0.1.0"
