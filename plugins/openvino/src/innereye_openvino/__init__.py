"""OpenVINO for InnerEye Deploy: evaluates exported networks, fast on CPUs."""

__version__ = "0.1.0"
