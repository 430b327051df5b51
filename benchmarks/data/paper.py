"""Figures as the papers print them, with their rounding.

Trustable's tables are missing from the text at hand, so only Seitzer et al. 2022 are here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# The sine of Fig. 1 (Sec. 1, B.2): what the true mean scores, what no optimiser of the plain NLL
# came below in two million updates, and when the squared error had reached the optimum.
SINE_OPTIMAL_RMSE = 0.01
SINE_LEAST_NLL_RMSE = 0.1
SINE_MSE_UPDATES = 100_000


@dataclass(frozen=True)
class Printed:
    """A mean ± standard deviation over runs.

    Attributes:
        text: as printed.
        runs: how many splits or seeds it is over.
    """

    text: str
    mean: float
    std: float
    runs: int

    @classmethod
    def parse(cls, text: str, runs: int) -> Self:
        """Read ``-3.25±0.31``."""
        mean, std = text.split("±")
        return cls(f"{mean} ± {std}", float(mean), float(std), runs)

    @property
    def rounding(self) -> float:
        """The most by which the printed mean may differ from the computed one."""
        decimals = len(self.text.split(" ")[0].partition(".")[2])
        return 0.5 * 10.0**-decimals


def uci_figures(name: str, runs: int) -> dict[str, dict[str, Printed]]:
    """Return Tables S1 and S2 for one set: by objective, then ``ll`` and ``rmse``.

    The objectives are ``beta=0``, ``beta=0.25``, ``beta=0.5``, ``beta=0.75``, ``beta=1``,
    ``moment_matching``, ``mse`` (no ``ll``), ``student_t``, ``xvamp``, ``xvamp_star``, ``vbem``
    and ``vbem_star``.
    """
    table = json.loads(Path(__file__).with_name("paper_uci.json").read_text(encoding="utf-8"))
    return {
        objective: {metric: Printed.parse(text, runs) for metric, text in figures.items()}
        for objective, figures in table[name].items()
    }
