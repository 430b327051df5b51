"""Learn probabilistic dynamics models from trajectories and serve them to planners.

The names below are imported when they are first used, so that ``import dynlearn.client`` needs
neither torch nor pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynlearn.client import AsyncDynamicsClient as AsyncDynamicsClient
    from dynlearn.client import DynamicsClient as DynamicsClient
    from dynlearn.config import TrainConfig as TrainConfig
    from dynlearn.data.store import EpisodeStore as EpisodeStore
    from dynlearn.models.dynamics import DynamicsModel as DynamicsModel
    from dynlearn.registry import Registry as Registry
    from dynlearn.training.dataset import train as train

_MODULES = {
    "AsyncDynamicsClient": "dynlearn.client",
    "DynamicsClient": "dynlearn.client",
    "DynamicsModel": "dynlearn.models.dynamics",
    "EpisodeStore": "dynlearn.data.store",
    "Registry": "dynlearn.registry",
    "TrainConfig": "dynlearn.config",
    "train": "dynlearn.training.dataset",
}

__all__ = [
    "AsyncDynamicsClient",
    "DynamicsClient",
    "DynamicsModel",
    "EpisodeStore",
    "Registry",
    "TrainConfig",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'dynlearn' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
