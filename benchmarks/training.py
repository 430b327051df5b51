"""Updates a second: our trainer, mbrl-lib's ``ModelTrainer``, and our update jitted in JAX.

The ensemble of PETS and MBPO: 5 members of 4 × 200 SiLU from 28 + 4 columns to 28, batch 256,
Adam 1e-3, float32. Whole trainers run epochs in turns, each in a process of its own: ours and
mbrl-lib's shuffle and resample in their own ways and validate on the same held-out tenth at each
epoch's end; JAX, with a dispatch an update or an epoch, makes bare updates. Each ratio is the
median over the rounds. Where there is a GPU, ours and mbrl-lib's run on it too. What a million
transitions take of memory is measured in another process (`benchmarks.memory`).
"""

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from benchmarks.memory import memory_ratio
from benchmarks.products import measure_products
from benchmarks.race import Contender, Lap, Turn, race
from benchmarks.report import markdown_table, print_figures, run_command
from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.scaling import Scaler
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.fit import dynamics_samples, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.trainer import Trainer
from dynlearn.training.training_data import TrainingData

BUDGETS = {"small": 8, "full": 40}
OBSERVATION, ACTION = 28, 4
EPOCH = 200
NEVER = 10**9
CONFIG = TrainConfig(
    dataset="synthetic",
    model="training",
    hidden=(200, 200, 200, 200),
    schedule="constant",
    max_updates=NEVER,
    validate_every=EPOCH,
    checkpoint_every=NEVER,
    patience=NEVER,
    device="cpu",
)
# The updates at which losses are compared.
STEPS = (1, 10, 100)
OURS, TRUSTABLE, BFLOAT16 = "dynlearn", "dynlearn, trustable", "dynlearn, bfloat16"
MBRL, JAX, JAX_SCAN = "mbrl-lib", "JAX, a dispatch an update", "JAX, a dispatch an epoch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    rounds = BUDGETS[parser.parse_args().budget]
    missing = [name for name in ("mbrl", "jax", "optax") if not importlib.util.find_spec(name)]
    if missing:
        sys.exit(f"expected {', '.join(missing)} to compare with; run make bench NAME=training")
    # JAX is compared on the CPU alone, and else looks for GPUs.
    os.environ["JAX_PLATFORMS"] = "cpu"
    train, validation = make_transitions(EPOCH * CONFIG.batch_size)
    figures = measure_products() | loss_differences(train) | {"memory_ratio": memory_ratio()}
    figures |= race_on("cpu", train, validation, rounds)
    figures["gflops"] = figures["updates_per_s"] * update_gflop()
    print(f"\nThe products of dynlearn's updates: {figures['gflops']:.0f} GFLOP/s.")
    if torch.cuda.is_available():
        on_gpu = race_on("cuda", train, validation, rounds)
        figures |= {f"cuda_{name}": value for name, value in on_gpu.items()}
    print_figures("training", figures)


def make_transitions(count: int) -> tuple[Transitions, Transitions]:
    """Return so many noisy transitions to train on, and another tenth of all."""
    rng = np.random.default_rng(0)
    total = round(count / 0.9)
    inputs = rng.standard_normal((total, OBSERVATION + ACTION), np.float32)
    mixing = rng.standard_normal((OBSERVATION + ACTION, OBSERVATION), np.float32)
    moved = np.tanh(inputs @ mixing / np.float32(len(mixing) ** 0.5))
    moved += 0.1 * rng.standard_normal(moved.shape, np.float32)
    observation, action = inputs[:, :OBSERVATION].copy(), inputs[:, OBSERVATION:].copy()

    def part(rows: slice) -> Transitions:
        arrays = observation[rows], action[rows], (observation + moved)[rows]
        return Transitions(*arrays, lengths=np.array([len(arrays[0])]))

    return part(slice(count)), part(slice(count, None))


def update_gflop() -> float:
    """Return what the products of one update of all members take, forward and backward."""
    widths = (OBSERVATION + ACTION, *CONFIG.hidden, 2 * OBSERVATION)
    first, *others = (a * b for a, b in pairwise(widths))
    # The data need no gradient.
    return 2e-9 * CONFIG.members * CONFIG.batch_size * (2 * first + 3 * sum(others))


def loss_differences(train: Transitions) -> dict[str, float]:
    """Train with JAX and ours from the same weights on the same batches; compare their losses."""
    from benchmarks.rivals import jax_update

    group = member_group(train)
    start = jax_update.Start.of(group)
    batches, losses = [], []
    loss_of = group.objective.loss

    def recording(prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        loss = loss_of(prediction, target, sample_ids)
        batches.append(sample_ids.numpy().copy())
        losses.append(loss.detach().numpy().copy())
        return loss

    group.objective.loss = recording  # type: ignore[method-assign]
    group.advance(max(STEPS))
    theirs = jax_update.losses(start, np.stack(batches))
    figures = {}
    print("\nMean loss of the members, and the largest relative difference of one:\n")
    rows = []
    for step in STEPS:
        a, b = losses[step - 1], theirs[step - 1]
        figures[f"loss_difference_{step}"] = difference = float(np.abs(a / b - 1).max())
        rows.append([str(step), f"{a.mean():.6f}", f"{b.mean():.6f}", f"{difference:.1e}"])
    print(markdown_table(["update", "dynlearn", "JAX", "difference"], rows), flush=True)
    return figures


def member_group(train: Transitions) -> MemberGroup:
    """Return all members in one group, at their initial weights."""
    values = np.concatenate((train.observation, train.action), 1)
    standardised = []
    for array in (values, train.next_observation - train.observation):
        scaler = Scaler(array.shape[1])
        scaler.fit(torch.from_numpy(array))
        standardised.append(scaler.standardise(torch.from_numpy(array)))
    inputs, targets = standardised
    data = TrainingData(inputs, targets, inputs[:0], targets[:0])
    head = Head("variance", OBSERVATION)
    network = EnsembleNetwork(
        CONFIG.members, OBSERVATION + ACTION, CONFIG.hidden, head, CONFIG.activation
    )
    return MemberGroup(CONFIG, network, data)


def train_ours(
    config: TrainConfig, train: Transitions, validation: Transitions, turn: Turn
) -> None:
    """Train without end; a lap is an epoch with a validation at its end."""
    observation, action = (
        BoxSpace(low=(-10.0,) * size, high=(10.0,) * size) for size in (OBSERVATION, ACTION)
    )
    spec = model_spec(config, ObservationSpace(observation=observation), action)
    regressor = EnsembleRegressor(spec.regressor).to(config.device)
    samples = [dynamics_samples(spec, part) for part in (train, validation)]
    hooks = Hooks(on_progress=lambda progress: turn(progress.means()))
    trainer = Trainer(config, regressor, samples[0], samples[1], hooks)
    turn({})
    trainer.run()


def race_on(
    device: str, train: Transitions, validation: Transitions, rounds: int
) -> dict[str, float]:
    """Race the trainers on a device, print how they did, and return the figures."""
    from benchmarks.rivals import jax_update, mbrl_trainer

    config = CONFIG.model_copy(update={"device": device})
    contenders: dict[str, Contender] = {
        name: partial(train_ours, config.model_copy(update=change), train, validation)
        for name, change in {
            OURS: {},
            TRUSTABLE: {"objective": "trustable"},
            BFLOAT16: {"precision": "bfloat16"},
        }.items()
    }
    contenders[MBRL] = partial(mbrl_trainer.train, config, train, validation)
    if device == "cpu":
        start = jax_update.Start.of(member_group(train))
        contenders[JAX] = partial(jax_update.train, start, config.batch_size, False)
        contenders[JAX_SCAN] = partial(jax_update.train, start, config.batch_size, True)
    print(f"\nOn {device}, {rounds} rounds of {EPOCH} updates, and the best validation in them:\n")
    return summarise(race(contenders, rounds))


def summarise(laps: Mapping[str, Sequence[Lap]]) -> dict[str, float]:
    """Print how the trainers did, and return the figures."""
    rates = {name: EPOCH / np.array([lap.seconds for lap in done]) for name, done in laps.items()}
    times = {name: float(np.median(rates[OURS] / rate)) for name, rate in rates.items()}
    best = {
        name: {measure: min(lap.measures[measure] for lap in done) for measure in done[0].measures}
        for name, done in laps.items()
    }
    rows = []
    for name, rate in rates.items():
        measures = [best[name].get(f"validation_{measure}") for measure in ("rmse", "nll")]
        shown = ["" if value is None else f"{value:.4f}" for value in measures]
        row = [name, f"{np.median(rate):.1f}", f"{rate.max():.1f}", f"{times[name]:.2f}", *shown]
        rows.append(row)
    title = ["", "updates/s, median", "best", "dynlearn's / this", "RMSE", "NLL"]
    print(markdown_table(title, rows), flush=True)
    nll = {name: measures.get("validation_nll", math.nan) for name, measures in best.items()}
    figures = {
        "updates_ratio": times[MBRL],
        "trustable_cost": times[TRUSTABLE],
        "bfloat16_speedup": 1 / times[BFLOAT16],
        "bfloat16_nll_cost": nll[BFLOAT16] - nll[OURS],
        "updates_per_s": float(np.median(rates[OURS])),
    }
    if JAX in times:
        figures["jax_ratio"] = min(times[JAX], times[JAX_SCAN])
    return figures


if __name__ == "__main__":
    run_command(main)
