"""Measurements beside the limits the project keeps. `make bench` runs them."""
