"""Networks fitted to the synthetic sets: how each is trained, the training, and its pictures."""
