"""A job's training: all seeds side by side, judged as it goes on, kept so that it can go on.

Shapes: K seeds, M training samples, N test samples, G points of a grid, D target dimensions,
T times at which the networks are judged.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.synthetic import load, score
from benchmarks.data.table import Array
from benchmarks.synthetic_fits.recipes import Job
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.models.scaling import Scaler
from dynlearn.objectives import make_objective
from dynlearn.storage.files import write_bytes
from dynlearn.storage.tensors import load_state, save_state
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.training_data import TrainingData

_TIMES = 40
_MOST_POINTS = 1000


@dataclass(frozen=True)
class Outcome:
    """What a job found, in original units.

    Attributes:
        updates: when the networks were judged, [T].
        curves: figures of `benchmarks.data.synthetic.score` on the test part, each [K, T].
        residuals: of the trained networks on the test part, [K, N, D].
        grid: inputs of the fit, ascending, [G].
        fit_mean: of the seed whose last NLL is the median, [G, D].
        fit_scale: its variance [G, D], or the Cholesky factor of its covariance [G, D, D].
        variances: the first seed's, of the first target at the training inputs, [T, M].
    """

    updates: Array
    curves: dict[str, Array]
    residuals: Array
    grid: Array
    fit_mean: Array
    fit_scale: Array
    variances: Array

    @property
    def fit(self) -> Gaussian:
        """The distribution on the grid, [G, D]."""
        mean, scale = torch.from_numpy(self.fit_mean), torch.from_numpy(self.fit_scale)
        return FullGaussian(mean, scale) if scale.dim() == 3 else DiagonalGaussian(mean, scale)

    def last(self, metric: str) -> Array:
        """Return a figure of the trained networks, [K]."""
        return self.curves[metric][:, -1]

    def save(self, path: Path) -> None:
        """Write the outcome as one file."""
        arrays = {**vars(self), **{f"curve_{name}": v for name, v in self.curves.items()}}
        del arrays["curves"]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        names = [name for name in arrays if name.startswith("curve_")]
        curves = {name.removeprefix("curve_"): arrays.pop(name) for name in names}
        return cls(curves=curves, **arrays)


class Training:
    """A job's networks under way."""

    def __init__(self, job: Job):
        self.problem = load(job.recipe.problem, job.seed)
        config = job.config
        train = [
            torch.from_numpy(v) for v in (self.problem.train.inputs, self.problem.train.targets)
        ]
        self._scalers = [Scaler(values.shape[1]).double() for values in train]
        if job.recipe.standardised:
            for scaler, values in zip(self._scalers, train, strict=True):
                scaler.fit(values)
        self._dtype = torch.float64 if config.precision == "float64" else torch.float32
        inputs, targets = (
            scaler.standardise(values).to(self._dtype)
            for scaler, values in zip(self._scalers, train, strict=True)
        )
        objective = make_objective(config)
        head = Head(objective.head(config.covariance), targets.shape[1], objective.components)
        self.network = EnsembleNetwork(
            config.members, 1, config.hidden, head, config.activation, config.separate_networks
        ).to(self._dtype)
        # Without early stopping the training part will do to validate on.
        data = TrainingData(inputs, targets, inputs, targets)
        self._group = MemberGroup(config, self.network, data)
        shares = torch.arange(1, _TIMES + 1, dtype=torch.float64) / _TIMES
        self.updates = torch.unique((shares * config.max_updates).ceil().long())
        self.history: dict[str, Tensor] = {}

    @property
    def update(self) -> int:
        """How many updates have been made."""
        return self._group.update

    @property
    def is_done(self) -> bool:
        """Whether all updates have been made."""
        return self._group.update == int(self.updates[-1])

    def advance(self) -> None:
        """Train until the networks are to be judged next, and judge them."""
        index = int(torch.searchsorted(self.updates, self._group.update, right=True))
        self._group.advance(int(self.updates[index]) - self._group.update)
        # Gives those without a scale of their own their residuals' variance.
        self._group.validate()
        for name, values in score(
            self.predict(self.problem.test.inputs), self.problem.test
        ).items():
            self._record(f"curve_{name}", values, index)
        self._record("variances", self.predict(self.problem.train.inputs).variance[0, :, 0], index)

    @torch.no_grad()
    def predict(self, inputs: Array) -> Distribution:
        """Return the distributions at inputs [N, 1], [K, N, D] in float64 and original units."""
        x, y = self._scalers
        scaled = x.standardise(torch.from_numpy(inputs)).to(self._dtype)
        prediction: Distribution = self.network(scaled)
        return prediction.apply(Tensor.double).affine(y.std, y.mean)

    def save(self, path: Path) -> None:
        """Write all that `load` needs."""
        group = {f"group.{name}": value for name, value in self._group.state().items()}
        history = {f"history.{name}": value for name, value in self.history.items()}
        save_state(path, group | history, {"update": self._group.update})

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            CorruptData: the file is not whole.
        """
        tensors, state = load_state(path)
        parts: dict[str, dict[str, Tensor]] = {"group": {}, "history": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self._group.load(parts["group"], state["update"])
        self.history = parts["history"]

    def outcome(self) -> Outcome:
        """Return what was found."""
        history = {name: values.mT.contiguous().numpy() for name, values in self.history.items()}
        variances = history.pop("variances").T
        curves = {name.removeprefix("curve_"): values for name, values in history.items()}
        last = curves["nll"][:, -1]
        # What is not finite counts as the worst.
        order = np.argsort(np.where(np.isfinite(last), last, np.inf))
        median = int(order[(len(last) - 1) // 2])
        test = self.problem.test
        grid = self.problem.grid[:: -(-len(self.problem.grid) // _MOST_POINTS)]
        fit = self.predict(grid[:, None])[median]
        scale = fit.scale_tril if isinstance(fit, FullGaussian) else fit.variance
        return Outcome(
            self.updates.double().numpy(),
            curves,
            test.targets - self.predict(test.inputs).mean.numpy(),
            grid,
            fit.mean.numpy(),
            scale.numpy(),
            variances,
        )

    def _record(self, name: str, values: Tensor, index: int) -> None:
        if name not in self.history:
            self.history[name] = values.new_full((len(self.updates), *values.shape), torch.nan)
        self.history[name][index] = values


def run(job: Job, folder: Path, report: Callable[[int], object]) -> Path:
    """Do a job, or what is left of it, and return the file of its `Outcome`.

    Args:
        job: what to train.
        folder: where it is kept, done or under way.
        report: told how many updates have been made since it was last told.
    """
    finished, unfinished = (folder / f"{job.file_name}{end}" for end in (".npz", ".safetensors"))
    if finished.exists():
        report(job.effort.updates)
        return finished
    training = Training(job)
    if unfinished.exists():
        training.load(unfinished)
    report(training.update)
    while not training.is_done:
        before = training.update
        training.advance()
        training.save(unfinished)
        report(training.update - before)
    training.outcome().save(finished)
    unfinished.unlink()
    return finished
