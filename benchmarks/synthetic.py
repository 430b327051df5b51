"""The papers' synthetic sets: each objective's fit beside the truth that it was drawn from.

All seeds of a fit train side by side, on the same data; figures are of the networks after their
last update, on the test part, in original units: the median over seeds [least, greatest].
``nn_constant_3`` is ``nn_constant`` with three hidden layers. ``trustable`` is the library's
default on every set; ``beta=0`` and ``nll`` are the same objective.

- ``nll``: in nats, summed over dimensions. ``kl``: KL(truth ‖ fit) in nats.
- ``rmse``, ``rmse_to_mean``: to the noisy targets, and to their true mean.
- ``w2``, ``w2_covariance``: squared 2-Wasserstein distance to the truth, and the covariances'
  part of it; ``w2_normalised``: 1 - exp(-√w2_covariance / 0.17).

The Trustable paper's own figures are missing from its text, so those of its sets stand alone.

What differs from the papers: Trustable's sets have a cosine schedule, under which last updates can
be compared; the spirals have SiLU and LeCun's initialisation where its paper has ReLU and Glorot's;
the thinnest has steps of 0.01, and at the paper's budget four times the paper's updates and three
seeds.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.data.paper import SINE_LEAST_NLL_RMSE, SINE_OPTIMAL_RMSE
from benchmarks.data.synthetic import load, score
from benchmarks.data.table import Array
from benchmarks.report import (
    Runs,
    command_line,
    comparison_table,
    print_figures,
    run_command,
    write_results,
)
from benchmarks.synthetic_fits.job import Outcome, run
from benchmarks.synthetic_fits.pictures import draw_set
from benchmarks.synthetic_fits.recipes import OBJECTIVES, RECIPES, Job
from dynlearn.errors import InvalidInput

BUDGETS = "small", "paper"
_METRICS = ("nll", "rmse", "rmse_to_mean", "kl", "w2", "w2_covariance", "w2_normalised")
_NOTES = {
    "sine": f"In the paper plain NLL never came below an RMSE of {SINE_LEAST_NLL_RMSE} in two "
    f"million updates; the true mean's is {SINE_OPTIMAL_RMSE}."
}


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int) -> dict[Job, Outcome]:
    """Do all jobs, each in a process of its own, some at once; return what they found."""
    folder.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    # The longest first, so that none is left alone at the end.
    queue = sorted(jobs, key=lambda job: -job.effort.updates * job.effort.seeds)
    with (
        context.Manager() as manager,
        tqdm(total=sum(job.effort.updates for job in jobs), unit="update", disable=None) as bar,
        ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool,
    ):
        reports = manager.Queue()
        paths = {pool.submit(run, job, folder, reports.put): job for job in queue}
        pending: set[Future[Path]] = set(paths)
        try:
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    bar.update(reports.get())
                for future in done:
                    future.result()
        except BaseException:
            # A fit may take hours; what has been done of it is kept.
            for process in active_children():
                process.terminate()
            raise
    return {job: Outcome.load(future.result()) for future, job in paths.items()}


def section(name: str, outcomes: Mapping[Job, Outcome], oracle: Mapping[str, float]) -> str:
    """Return one set's part of the results: how it was trained on, and the figures."""
    ours = {
        job.objective: {metric: Runs(tuple(outcome.last(metric))) for metric in _METRICS}
        for job, outcome in outcomes.items()
    }
    parts = [
        f"## {name}",
        f"{next(iter(outcomes)).description} {_NOTES.get(name, '')}".strip(),
        comparison_table(ours, oracle=oracle, statistic="median"),
        wins({job.objective: outcome.last("nll") for job, outcome in outcomes.items()}),
    ]
    return "\n\n".join(part for part in parts if part)


def wins(nll: Mapping[str, Array]) -> str:
    """Return in how many seeds Trustable's NLL is below that of each other objective."""
    others = [each for each in nll if each != "mse" and not each.startswith("trustable")]
    if "trustable" not in nll or not others:
        return ""
    # What is not a number loses.
    ours, seeds = np.nan_to_num(nll["trustable"], nan=np.inf), len(nll["trustable"])
    counts = [
        f"{objective} in {int((ours < np.nan_to_num(nll[objective], nan=np.inf)).sum())}"
        for objective in others
    ]
    return f"Of {seeds} seeds, Trustable's NLL is below that of {', of '.join(counts)}."


def figures(
    name: str, outcomes: Mapping[Job, Outcome], oracle: Mapping[str, float]
) -> dict[str, float]:
    """Return each objective's medians and how many seeds stayed finite."""
    measured = {f"{name}_oracle_nll": oracle["nll"]}
    for job, outcome in outcomes.items():
        runs = {metric: Runs(tuple(outcome.last(metric))) for metric in ("nll", "rmse")}
        key = f"{name}_{job.objective}"
        measured |= {f"{key}_{metric}": values.median for metric, values in runs.items()}
        measured[f"{key}_finite_seeds"] = len(runs["nll"].finite)
    return measured


def main() -> None:
    arguments = parse()
    chosen = [
        Job(name, RECIPES[name], effort, objective, arguments.seed)
        for name in arguments.sets
        for effort in [RECIPES[name].efforts[arguments.budget]]
        for objective in effort.objectives
        if objective in arguments.objectives
    ]
    if not chosen:
        raise InvalidInput(
            f"expected an objective that {', '.join(arguments.sets)} has at the "
            f"{arguments.budget} budget, got {', '.join(arguments.objectives)}; leave out "
            "--objectives, or take the other budget"
        )
    outcomes = run_jobs(chosen, arguments.out / "fits", arguments.workers)
    sections: list[str] = []
    measured: dict[str, float] = {}
    for name in arguments.sets:
        found = {job: outcomes[job] for job in chosen if job.name == name}
        if not found:
            continue
        problem = load(RECIPES[name].problem, arguments.seed)
        # Distances of the truth from itself are rounding.
        truth = score(problem.test.truth, problem.test)
        oracle = {metric: round(float(value), 12) + 0.0 for metric, value in truth.items()}
        sections.append(section(name, found, oracle))
        print(f"\n{sections[-1]}", flush=True)
        measured |= figures(name, found, oracle)
        by_objective = {job.objective: outcome for job, outcome in found.items()}
        draw_set(arguments.out / name, problem, by_objective, oracle)
    write_results(
        arguments.results or arguments.out / "synthetic.md",
        "The papers' synthetic sets",
        command_line("synthetic", arguments),
        arguments.seed,
        "\n\n".join([(__doc__ or "").split("\n\n", 1)[1].strip(), *sections]),
    )
    print_figures("synthetic", measured)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--sets", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="how many fits train at once")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-results/synthetic"), help="fits and figures"
    )
    parser.add_argument("--results", type=Path, help="the Markdown file to write")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers: expected at least 1, got {arguments.workers}")
    return arguments


if __name__ == "__main__":
    run_command(main)
