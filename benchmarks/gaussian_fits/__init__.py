"""Fits of one free Gaussian to samples: cases, parametrisations, optimizers and their figures."""
