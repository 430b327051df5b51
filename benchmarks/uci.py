"""β-NLL and the squared error on the UCI sets: Tables S1 and S2 of Seitzer et al. 2022.

For each set, objective and split: a network is trained on 80 % of the training rows with each
step size, until its validation NLL (MSE for ``mse``) has not improved for 50 epochs; with the best
step size and number of epochs it is trained anew on all training rows, and tested once. All splits
of a set train at once, as the members of one ensemble. What is done is kept under ``--out``, so
that a run that was cut off goes on.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.data import uci
from benchmarks.data.paper import uci_figures
from benchmarks.data.table import Table
from benchmarks.report import (
    Runs,
    command_line,
    comparison_table,
    print_figures,
    run_command,
    write_results,
)
from dynlearn.config import TrainConfig
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives import make_objective
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.training_data import TrainingData

OBJECTIVES: dict[str, dict[str, object]] = {
    "beta=0": {"objective": "nll"},
    "beta=0.5": {"objective": "beta_nll", "beta": 0.5},
    "beta=1": {"objective": "beta_nll", "beta": 1.0},
    "mse": {"objective": "mse"},
    "student_t": {"objective": "student_t"},
}
PATIENCE_EPOCHS = 50


@dataclass(frozen=True)
class Budget:
    """How much of the paper's protocol is done."""

    splits: int
    learning_rates: tuple[float, ...]
    updates: int


BUDGETS = {
    "small": Budget(5, (3e-4, 1e-3, 3e-3), 20_000),
    "paper": Budget(20, (1e-4, 3e-4, 7e-4, 1e-3, 3e-3, 7e-3), 100_000),
}


class SplitGroup:
    """One network a split, trained side by side; all splits have equally many rows."""

    def __init__(
        self,
        config: TrainConfig,
        hidden: int,
        splits: Sequence[int],
        trained: Sequence[Table],
        judged: Sequence[Table],
    ):
        scalers = [uci.fit_scalers(table) for table in trained]
        scaled = [
            (
                x.standardise(torch.from_numpy(table.inputs)),
                y.standardise(torch.from_numpy(table.targets)),
            )
            for (x, y), table in zip(scalers, trained, strict=True)
        ]
        inputs, targets = (torch.cat(parts).float() for parts in zip(*scaled, strict=True))
        count = len(trained[0])
        rows = torch.arange(len(inputs)).view(len(trained), count)
        objective = make_objective(config)
        head = Head(objective.head("diagonal"), targets.shape[1], objective.components)
        self.network = EnsembleNetwork(len(trained), inputs.shape[1], (hidden,), head, "relu")
        none = inputs[:0], targets[:0]
        self.group = MemberGroup(
            config, self.network, TrainingData(inputs, targets, *none), splits[0], rows
        )
        self.updates_per_epoch = count // self.group.batch_size
        self._inputs = torch.stack(
            [
                x.standardise(torch.from_numpy(table.inputs)).float()
                for (x, _), table in zip(scalers, judged, strict=True)
            ]
        )
        self._targets = torch.stack([torch.from_numpy(table.targets) for table in judged])
        self._scale = torch.stack([y.std for _, y in scalers]).unsqueeze(1)
        self._shift = torch.stack([y.mean for _, y in scalers]).unsqueeze(1)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return each split's log-likelihood and RMSE in original units, [2, E]."""
        prediction = self.network(self._inputs).apply(Tensor.double)
        prediction = prediction.affine(self._scale, self._shift)
        log_likelihood = prediction.log_prob(self._targets).mean(1)
        rmse = (prediction.mean - self._targets).square().mean((1, 2)).sqrt()
        return torch.stack((log_likelihood, rmse))


@dataclass(frozen=True)
class Tuned:
    """How well one step size did: each split's best validation measure, and at which epoch."""

    measure: list[float]
    epoch: list[int]


def tune(config: TrainConfig, name: str, tables: Sequence[tuple[Table, Table]]) -> Tuned:
    """Train with one step size until no split's validation measure improves any more."""
    trained, judged = zip(*tables, strict=True)
    run = SplitGroup(config, uci.find(name).hidden, range(len(tables)), trained, judged)
    best = torch.full((len(tables),), math.inf, dtype=torch.float64)
    best_epoch = torch.zeros(len(tables), dtype=torch.int64)
    for epoch in range(1, config.max_updates // run.updates_per_epoch + 1):
        run.group.advance(run.updates_per_epoch)
        log_likelihood, rmse = run.scores()
        measure = rmse if config.objective.name == "mse" else -log_likelihood
        # A split that has stopped stays stopped.
        better = (measure < best) & (epoch - best_epoch <= PATIENCE_EPOCHS)
        best = torch.where(better, measure, best)
        best_epoch = torch.where(better, epoch, best_epoch)
        if (epoch - best_epoch >= PATIENCE_EPOCHS).all():
            break
    return Tuned(best.tolist(), best_epoch.tolist())


def test(
    config: TrainConfig,
    name: str,
    splits: Sequence[int],
    epochs: Sequence[int],
    tables: Sequence[tuple[Table, Table]],
) -> list[tuple[float, float]]:
    """Train some splits with one step size, each for its epochs; return test LL and RMSE."""
    trained, judged = zip(*tables, strict=True)
    run = SplitGroup(config, uci.find(name).hidden, splits, trained, judged)
    scores = torch.full((2, len(splits)), math.nan, dtype=torch.float64)
    for epoch in range(1, max(epochs) + 1):
        run.group.advance(run.updates_per_epoch)
        due = torch.tensor([epoch == last for last in epochs])
        if due.any():
            scores = torch.where(due, run.scores(), scores)
    return [(float(ll), float(rmse)) for ll, rmse in scores.T]


def run_objective(
    name: str, label: str, budget: Budget, seed: int, table: Table, folder: Path
) -> dict[str, Runs]:
    """Return test LL and RMSE over the splits; every training run is kept in ``folder``."""
    uci_set = uci.find(name)
    updates = min(uci_set.updates, budget.updates)
    splits = uci.splits(name)[: budget.splits]

    def config(learning_rate: float, members: int) -> TrainConfig:
        return TrainConfig.model_validate(
            {
                "dataset": name,
                "model": label,
                **OBJECTIVES[label],
                "activation": "relu",
                "initialization": "xavier_uniform",
                "schedule": "constant",
                "bootstrap": False,
                "members": members,
                "learning_rate": learning_rate,
                "max_updates": updates,
                "seed": seed,
            }
        )

    tuning = [(table[fit], table[select]) for fit, select in (each.tuning() for each in splits)]
    tuned = [
        Tuned(
            **kept(
                folder / f"{name}-{label}-{rate:g}-tuned.json",
                lambda rate: vars(tune(config(rate, len(splits)), name, tuning)),
                rate,
            )
        )
        for rate in budget.learning_rates
    ]
    measures = np.nan_to_num(np.array([each.measure for each in tuned]), nan=np.inf)
    best = measures.argmin(0)
    scores: dict[int, tuple[float, float]] = {}
    for index in np.unique(best):
        chosen = np.flatnonzero(best == index).tolist()
        epochs = [tuned[index].epoch[split] for split in chosen]
        tables = [(table[splits[i].train], table[splits[i].test]) for i in chosen]
        rate = budget.learning_rates[index]
        found = kept(
            folder / f"{name}-{label}-{rate:g}-tested.json",
            lambda *run: {"scores": test(*run)},
            config(rate, len(chosen)),
            name,
            chosen,
            epochs,
            tables,
        )
        scores |= dict(zip(chosen, found["scores"], strict=True))
    lls, rmses = zip(*(scores[split] for split in sorted(scores)), strict=True)
    figures = {"rmse": Runs(tuple(rmses))}
    return figures if label == "mse" else {"ll": Runs(tuple(lls)), **figures}


def kept(path: Path, compute: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return what an earlier run kept at ``path``, or compute and keep it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(compute(*arguments)))
        aside.replace(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    budget = BUDGETS[arguments.budget]
    figures: dict[str, float] = {}
    sections: list[str] = []
    bar = tqdm(total=len(arguments.sets) * len(arguments.objectives), disable=None)
    for name in arguments.sets:
        table = uci.load(arguments.data, name)
        ours = {}
        for label in arguments.objectives:
            bar.set_description(f"{name} {label}")
            folder = arguments.out / f"{arguments.budget}-seed{arguments.seed}"
            ours[label] = run_objective(name, label, budget, arguments.seed, table, folder)
            bar.update()
            figures |= {
                f"{name}_{label}_{metric}": runs.mean for metric, runs in ours[label].items()
            }
        paper = uci_figures(name, uci.find(name).splits)
        sections.append(f"## {name}\n\n{comparison_table(ours, paper)}")
        print(f"\n{sections[-1]}", flush=True)
    bar.close()
    write_results(
        arguments.results or arguments.out / "uci.md",
        "UCI sets: our figures beside those of Seitzer et al. 2022",
        command_line("uci", arguments),
        arguments.seed,
        "\n\n".join([__doc__.split("\n\n", 1)[1].strip(), *sections]),
    )
    print_figures("uci", figures)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of the sets' files, NAME.txt")
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--sets", nargs="+", choices=uci.SETS, default=None)
    parser.add_argument(
        "--objectives",
        nargs="+",
        choices=OBJECTIVES,
        default=["beta=0", "beta=0.5", "beta=1", "mse"],
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-results/uci"), help="what is done"
    )
    parser.add_argument("--results", type=Path, help="the Markdown file to write")
    arguments = parser.parse_args()
    if arguments.data is None:
        sources = "\n".join(f"  {each.name}.txt: {each.source}" for each in uci.SETS.values())
        parser.error(
            f"--data: expected the folder of the UCI sets, got none; get them from\n{sources}"
        )
    if arguments.sets is None:
        arguments.sets = [name for name in uci.SETS if (arguments.data / f"{name}.txt").exists()]
    return arguments


if __name__ == "__main__":
    run_command(main)
