"""Training a model and publishing it."""
