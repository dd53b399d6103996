"""Datasets for training are made here of what one has: pictures, videos, and the archives of well-known sets."""
