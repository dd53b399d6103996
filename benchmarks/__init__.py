"""Benchmarks; run as modules from the root of a checkout, such as ``python -m benchmarks.gpu``."""
