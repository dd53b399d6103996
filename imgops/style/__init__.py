"""Style transfer: by optimisation of the picture, by a network of one style, and by one for all styles."""
