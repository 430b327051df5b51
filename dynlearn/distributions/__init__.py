"""Gaussian and Student-t distributions, and the mixture of an ensemble."""
