"""Imagined returns a second: our `estimate_returns` and mbrl-lib's ``evaluate_action_sequences``.

The planning step of PETS: 350 action sequences of 15 steps with 20 particles, with the ensemble of
PETS and MBPO: 5 members of 4 × 200 SiLU from 28 + 4 columns to 28, float32, on the CPU. Both take
turns, each in a process of its own with all of torch's threads, with ``ts1`` and with ``tsinf``;
each ratio is the median over the rounds. Ours runs a third time with the products between hidden
layers in bfloat16, and how far that moves the returns is in standard deviations over the sequences;
the weights are not trained. The limit takes turns too: nothing but the rollout's matrix products,
on as many threads and in pieces as large as ours; ``products_share`` is its time over ours.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from benchmarks.race import Contender, Lap, Turn, race
from benchmarks.report import markdown_table, print_figures, run_command
from dynlearn.config.choices import PredictionPrecision, Propagation
from dynlearn.models.affine import members_affine, onednn_is_faster
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.planning import estimate_returns
from dynlearn.spaces import BoxSpace, ObservationSpace

BUDGETS = {"small": 20, "full": 100}
OBSERVATION, ACTION = 28, 4
MEMBERS, HIDDEN = 5, (200, 200, 200, 200)
CANDIDATES, PARTICLES, HORIZON = 350, 20, 15
# Ours, and what mbrl-lib calls them.
PROPAGATIONS: dict[Propagation, str] = {"ts1": "random_model", "tsinf": "fixed_model"}

# What ours is called with each.
PRECISIONS: dict[str, PredictionPrecision] = {"": "float32", " bfloat16": "bfloat16"}
PRODUCTS = "products alone"
# Rows of each member in one of the bare products.
PIECE = 175


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    rounds = BUDGETS[parser.parse_args().budget]
    if not importlib.util.find_spec("mbrl"):
        sys.exit("expected mbrl to compare with; run make bench NAME=rollout")
    from benchmarks.rivals import mbrl_rollout

    start, actions = make_plans()
    contenders: dict[str, Contender] = {}
    for ours, theirs in PROPAGATIONS.items():
        for suffix, precision in PRECISIONS.items():
            name = f"dynlearn{suffix}, {ours}"
            contenders[name] = partial(imagine, ours, precision, start, actions)
        contenders[f"mbrl-lib, {ours}"] = partial(
            mbrl_rollout.imagine, HIDDEN, MEMBERS, start, actions, PARTICLES, theirs, reward_of
        )
    contenders[PRODUCTS] = multiply
    print(f"\n{CANDIDATES} sequences of {HORIZON} steps, {PARTICLES} particles, {rounds} rounds:\n")
    figures = summarise(race(contenders, rounds))
    moved = returns_moved_by_bfloat16(start, actions)
    print(f"In bfloat16 a return is off by {moved:.2g} standard deviations on average.")
    print_figures("rollout", figures | {"bfloat16_returns_moved": moved})


def make_plans() -> tuple[Tensor, Tensor]:
    """Return a start state [O] and action sequences [P, H, A]."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(OBSERVATION, generator=generator)
    return start, 2 * torch.rand(CANDIDATES, HORIZON, ACTION, generator=generator) - 1


def make_model(
    columns: int = OBSERVATION, precision: PredictionPrecision = "float32"
) -> DynamicsModel:
    """Return a model of so many observation columns, at its initial weights."""
    observation, action = (
        BoxSpace(low=(-10.0,) * size, high=(10.0,) * size) for size in (columns, ACTION)
    )
    every = tuple(range(columns))
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=observation),
        action_space=action,
        observation_columns=every,
        target_columns=every,
        members=MEMBERS,
        hidden=HIDDEN,
        activation="silu",
    )
    model = DynamicsModel(spec)
    generators = [torch.Generator().manual_seed(member) for member in range(MEMBERS)]
    model.regressor.network.initialize("lecun_uniform", generators)
    if precision == "bfloat16":
        model.regressor.use_bfloat16()
    return model


def reward_of(following: Tensor) -> Tensor:
    """Return minus the distance of the first three columns from zero."""
    distance: Tensor = torch.linalg.vector_norm(following[..., :3], dim=-1)
    return -distance


def imagine(
    propagation: Propagation,
    precision: PredictionPrecision,
    start: Tensor,
    actions: Tensor,
    turn: Turn,
) -> None:
    """Imagine without end; a lap is one call for all action sequences."""
    model = make_model(precision=precision)
    turn({})
    while True:
        judge(model, propagation, start, actions)
        turn({})


def multiply(turn: Turn) -> None:
    """Do nothing but the products of a rollout without end; a lap is those of one call."""
    widths = [OBSERVATION + ACTION, *HIDDEN, 2 * OBSERVATION]
    operands = [
        (torch.ones(MEMBERS, PIECE, a), torch.ones(MEMBERS, a, b)) for a, b in pairwise(widths)
    ]
    pieces = range(-(-CANDIDATES * PARTICLES * HORIZON // (MEMBERS * PIECE)))
    product = _onednn if onednn_is_faster() else torch.bmm

    def layers(piece: int) -> None:
        for inputs, weights in operands:
            product(inputs, weights)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, "products", torch.set_num_threads, (1,)) as pool:
        turn({})
        while True:
            list(pool.map(layers, pieces, chunksize=1))
            turn({})


def _onednn(inputs: Tensor, weights: Tensor) -> Tensor:
    no_bias = torch.zeros(MEMBERS, 1, weights.shape[2])
    return members_affine(no_bias, inputs, weights, with_onednn=True)


def judge(model: DynamicsModel, propagation: Propagation, start: Tensor, actions: Tensor) -> Tensor:
    """Return the mean return of each action sequence, [P]."""
    returns = estimate_returns(
        model,
        lambda before, action, following, context: reward_of(following),
        start[None],
        actions[None],
        start.new_empty(1, 0),
        PARTICLES,
        propagation,
        risk_aversion=0.0,
        seed=0,
    )
    return returns.mean[0]


def returns_moved_by_bfloat16(start: Tensor, actions: Tensor) -> float:
    """Return how far a return is off on average, in standard deviations over the sequences."""
    exact, rounded = (
        judge(make_model(precision=precision), "tsinf", start, actions)
        for precision in PRECISIONS.values()
    )
    return float((rounded - exact).abs().mean() / exact.std())


def rollout_gflop() -> float:
    """Return what the products of one rollout take."""
    widths = (OBSERVATION + ACTION, *HIDDEN, 2 * OBSERVATION)
    rows = CANDIDATES * PARTICLES * HORIZON
    return 2e-9 * rows * sum(a * b for a, b in pairwise(widths))


def summarise(laps: Mapping[str, Sequence[Lap]]) -> dict[str, float]:
    """Print how all did, and return the figures; those of ``tsinf`` have its name."""
    figures: dict[str, float] = {}
    rows = []
    alone = np.array([lap.seconds for lap in laps[PRODUCTS]])
    for propagation in PROPAGATIONS:
        seconds = {
            who: np.array([lap.seconds for lap in laps[f"{who}, {propagation}"]])
            for who in ("dynlearn", "dynlearn bfloat16", "mbrl-lib")
        }
        ours, rounded, theirs = seconds.values()
        found = {
            "speedup": float(np.median(theirs / ours)),
            "bfloat16_speedup": float(np.median(theirs / rounded)),
            "seconds": float(np.median(ours)),
            "bfloat16_seconds": float(np.median(rounded)),
            "mbrl_seconds": float(np.median(theirs)),
            "gflops": rollout_gflop() / float(np.median(ours)),
            "products_share": float(np.median(alone / ours)),
        }
        prefix = "" if propagation == "ts1" else f"{propagation}_"
        figures |= {f"{prefix}{name}": value for name, value in found.items()}
        for who, taken in seconds.items():
            times = f"{np.median(theirs / taken):.2f}"
            rate = f"{rollout_gflop() / np.median(taken):.0f}"
            shown = [f"{np.median(taken):.3f}", f"{taken.min():.3f}", rate, times]
            rows.append([f"{who}, {propagation}", *shown])
    rate = f"{rollout_gflop() / np.median(alone):.0f}"
    rows.append([PRODUCTS, f"{np.median(alone):.3f}", f"{alone.min():.3f}", rate, ""])
    title = ["", "seconds, median", "best", "GFLOP/s of products", "mbrl-lib's / this"]
    print(markdown_table(title, rows), flush=True)
    return figures


if __name__ == "__main__":
    run_command(main)
