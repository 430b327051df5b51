"""From a dataset to a fitted model."""

from dynlearn.training.dataset import train
from dynlearn.training.fit import TrainedModel
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress

__all__ = ["Hooks", "Progress", "TrainedModel", "train"]
