"""Benchmarks: our runtimes beside MONAI, nnU-Net and InnerEye's method, on the same weights, volumes and patches.

``python -m benchmarks`` with this folder's parent on the path prints one table; README.md says what is compared and why
that is fair. Nothing here is a test.
"""
