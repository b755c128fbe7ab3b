"""ONNX for InnerEye Deploy: exports networks, and evaluates them with ONNX Runtime."""

__version__ = "0.1.0"
