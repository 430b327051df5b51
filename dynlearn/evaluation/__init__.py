"""How good a model is on episodes that it has not seen: numbers, figures and a model card."""

from dynlearn.evaluation.card import write_report, write_unmeasured
from dynlearn.evaluation.measures import Evaluation, Metrics, evaluate

__all__ = ["Evaluation", "Metrics", "evaluate", "write_report", "write_unmeasured"]
