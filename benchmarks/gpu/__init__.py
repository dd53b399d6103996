"""What can be said of imgops on one GPU; run as ``python -m benchmarks.gpu``."""
