"""From a dataset to a fitted model."""

from dynlearn.training.dataset import TrainedModel, train

__all__ = ["TrainedModel", "train"]
