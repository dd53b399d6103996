"""The networks: encoders, the networks of style transfer, and generators, a package for each family."""
