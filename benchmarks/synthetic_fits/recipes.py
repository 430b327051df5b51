"""How each synthetic set is trained on: the networks of its paper, but for the spirals' activation.

The sets of the β-NLL paper are not standardised and have one trunk for mean and variance. Those of
the Trustable paper are standardised by their training part, and mean and scale have networks of
their own, of the same kind and size for every objective. ``trustable`` is the library's default on
every set; the thinnest spiral, on which it is too loose, has a tighter one beside it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from dynlearn.config import TrainConfig

OBJECTIVES: dict[str, dict[str, object]] = {
    "beta=0": {"objective": "nll"},
    "nll": {"objective": "nll"},
    "beta=0.5": {"objective": "beta_nll", "beta": 0.5},
    "beta=1": {"objective": "beta_nll", "beta": 1.0},
    "mse": {"objective": "mse"},
    "trustable": {"objective": "trustable"},
    "trustable_bound=0.001": {"objective": "trustable", "covariance_bound": 0.001},
}
_LIKELIHOODS = ("nll", "beta=0.5", "beta=1", "trustable")


@dataclass(frozen=True)
class Effort:
    """How much is done: gradient updates, seeds trained side by side, and the objectives."""

    updates: int
    seeds: int
    objectives: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """What a set's networks are and how they are trained.

    Attributes:
        problem: the data, a name that `benchmarks.data.synthetic.load` knows.
        standardised: whether inputs and targets are, by the training part.
        options: of `TrainConfig`.
        efforts: by budget.
    """

    problem: str
    standardised: bool
    options: dict[str, Any]
    efforts: dict[str, Effort]


# Itself its key: a recipe's options have no hash.
@dataclass(frozen=True, eq=False)
class Job:
    """One objective on one set, all seeds at once.

    Attributes:
        name: the set's name among `RECIPES`.
        objective: one of `OBJECTIVES`.
        seed: of the data and of the networks.
    """

    name: str
    recipe: Recipe
    effort: Effort
    objective: str
    seed: int

    @property
    def config(self) -> TrainConfig:
        """How the networks are trained; each seed is a member."""
        return TrainConfig.model_validate(
            {
                "dataset": self.recipe.problem,
                "model": self.name,
                "initialization": "xavier_uniform",
                "schedule": "constant",
                "bootstrap": False,
                **self.recipe.options,
                **OBJECTIVES[self.objective],
                "members": self.effort.seeds,
                "max_updates": self.effort.updates,
                "seed": self.seed,
            }
        )

    @property
    def file_name(self) -> str:
        """A name that changes with every option, so that no outcome is taken for another's."""
        content = [asdict(self), self.config.model_dump(mode="json")]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{self.objective}-{digest[:12]}"

    @property
    def description(self) -> str:
        """The options in words, but for the objective."""
        config = self.config
        networks = "a mean and a scale network, each" if config.separate_networks else "one network"
        layers = " × ".join(map(str, config.hidden))
        scaling = "standardised" if self.recipe.standardised else "not standardised"
        return (
            f"{networks} {layers} {config.activation}, {config.initialization}, Adam "
            f"{config.learning_rate:g} ({config.schedule}), batch {config.batch_size}, "
            f"{config.precision}, {config.covariance} covariance, inputs and targets {scaling}; "
            f"{self.effort.updates:,} updates, {self.effort.seeds} seeds."
        )


_PITFALLS: dict[str, Any] = {"hidden": (128, 128), "activation": "tanh", "batch_size": 100}
_TRUSTABLE: dict[str, Any] = {
    "hidden": (50, 50),
    "activation": "relu",
    "separate_networks": True,
    "learning_rate": 5e-3,
    "schedule": "cosine",
    "batch_size": 512,
}
_SPIRAL: dict[str, Any] = {
    **_TRUSTABLE,
    "hidden": (50, 50, 50),
    "activation": "silu",
    "initialization": "lecun_uniform",
    "covariance": "full",
    "precision": "float64",
}


def _of_trustable(problem: str, options: dict[str, Any], small: Effort, paper: Effort) -> Recipe:
    return Recipe(problem, True, options, {"small": small, "paper": paper})


# 3000 epochs of 3 batches.
_PAPER = Effort(9000, 10, _LIKELIHOODS)
RECIPES = {
    "sine": Recipe(
        "sine",
        False,
        {**_PITFALLS, "learning_rate": 5e-4},
        {
            "small": Effort(80_000, 3, ("beta=0", "beta=1")),
            "paper": Effort(2_000_000, 10, ("beta=0", "beta=0.5", "beta=1", "mse", "trustable")),
        },
    ),
    "detlefsen": Recipe(
        "detlefsen",
        False,
        {**_PITFALLS, "learning_rate": 1e-4, "initialization": "lecun_uniform"},
        {
            "small": Effort(15_000, 3, ("beta=0", "beta=0.5", "beta=1", "mse", "trustable")),
            "paper": Effort(200_000, 10, ("beta=0", "beta=0.5", "beta=1", "mse", "trustable")),
        },
    ),
    **{
        name: _of_trustable(name, _TRUSTABLE, Effort(1200, 5, _LIKELIHOODS), _PAPER)
        for name in (
            "trustable_sine",
            "trustable_sine_code",
            "trustable_detlefsen",
            "trustable_detlefsen_code",
        )
    },
    **{
        name: _of_trustable(
            "nn_constant",
            {**_TRUSTABLE, "hidden": hidden},
            Effort(1800, 10, _LIKELIHOODS),
            _PAPER,
        )
        for name, hidden in (("nn_constant", (50, 50)), ("nn_constant_3", (50, 50, 50)))
    },
    **{
        name: _of_trustable(
            name, _SPIRAL, Effort(1000, 3, _LIKELIHOODS), Effort(21_000, 10, _LIKELIHOODS)
        )
        for name in ("spiral_k0", "spiral_k2")
    },
    # Four times its paper's updates, in larger steps, for standard deviations of 3e-5 that turn
    # with the mean.
    "spiral_k5": _of_trustable(
        "spiral_k5",
        {**_SPIRAL, "learning_rate": 1e-2},
        Effort(3000, 5, (*_LIKELIHOODS, "trustable_bound=0.001")),
        Effort(84_000, 3, (*_LIKELIHOODS, "trustable_bound=0.001")),
    ),
}
