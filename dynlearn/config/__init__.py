"""The configuration of every kind of work: one source of CLI flags, YAML files and saved JSON.

One file a command; field descriptions are the command line's help. Only the standard library and
pydantic are needed here.
"""

from dynlearn.config.base import Config
from dynlearn.config.collect import CollectConfig
from dynlearn.config.evaluate import EvaluateConfig
from dynlearn.config.plan import PlanConfig, PlannerConfig
from dynlearn.config.serve import ServeConfig
from dynlearn.config.train import TrainConfig

__all__ = [
    "CollectConfig",
    "Config",
    "EvaluateConfig",
    "PlanConfig",
    "PlannerConfig",
    "ServeConfig",
    "TrainConfig",
]
