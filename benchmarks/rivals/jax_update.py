"""Our update of an ensemble under β-NLL, jitted in JAX with optax's Adam.

Shapes: E members, B batch, M samples, I inputs, D targets, U updates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from benchmarks.race import Turn
from dynlearn.models.heads import MAX_VARIANCE, MIN_VARIANCE
from dynlearn.models.networks import EnsembleLinear
from dynlearn.objectives import BetaNLL
from dynlearn.training.member_group import MemberGroup

Array = NDArray[np.float32]
# So that a raw zero gives a variance of one.
_OFFSET = math.log(math.expm1(1 - MIN_VARIANCE))


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes:
        layers: weights [E, I, D] and biases [E, 1, D] of each.
        inputs: standardised, [M, I].
        targets: standardised, [M, D].
        learning_rate: Adam's.
        beta: of β-NLL.
    """

    layers: Sequence[tuple[Array, Array]]
    inputs: Array
    targets: Array
    learning_rate: float
    beta: float

    @classmethod
    def of(cls, group: MemberGroup) -> "Start":
        """Take the place at which a group of members under β-NLL is."""
        layers = [
            (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
            for layer in group.network.modules()
            if isinstance(layer, EnsembleLinear)
        ]
        assert isinstance(group.objective, BetaNLL)
        inputs, targets = group.data.inputs.numpy(), group.data.targets.numpy()
        return cls(layers, inputs, targets, group.config.learning_rate, group.objective.beta)


def train(start: Start, batch_size: int, is_scan: bool, turn: Turn) -> None:
    """Train without end; a lap is an epoch, each member's on its own resample.

    Args:
        start: where to begin.
        batch_size: B; the samples are a multiple of it.
        is_scan: one dispatch an epoch, not one an update.
        turn: called between laps.
    """
    members, samples = len(start.layers[0][0]), len(start.inputs)
    rng = np.random.default_rng(0)
    resample = rng.integers(samples, size=(members, samples), dtype=np.int32)
    state, update = prepare(start)
    one = jax.jit(update, donate_argnums=0)
    many = jax.jit(lambda state, order: jax.lax.scan(update, state, order), donate_argnums=0)
    turn({})
    while True:
        shuffled = rng.permuted(resample, axis=1).reshape(members, -1, batch_size)
        order = np.ascontiguousarray(shuffled.swapaxes(0, 1))
        if is_scan:
            state, _ = many(state, order)
        else:
            for rows in order:
                state, _ = one(state, rows)
        jax.block_until_ready(state)
        turn({})


def losses(start: Start, order: NDArray[np.integer]) -> NDArray[np.floating]:
    """Return each member's loss at each update [U, E], for the batches [U, E, B]."""
    state, update = prepare(start)
    return np.asarray(jax.lax.scan(update, state, order.astype(np.int32))[1])


def prepare(start: Start) -> tuple[Any, Callable[[Any, Any], tuple[Any, Any]]]:
    """Return the first state, and the update from it and rows [E, B] to the next and losses [E]."""
    inputs, targets = jnp.array(start.inputs), jnp.array(start.targets)
    optimizer = optax.adam(start.learning_rate)

    def total_loss(layers: Any, rows: Any) -> tuple[Any, Any]:
        features, target = inputs[rows], targets[rows]
        for weight, bias in layers[:-1]:
            features = jax.nn.silu(features @ weight + bias)
        weight, bias = layers[-1]
        mean, raw = jnp.split(features @ weight + bias, 2, -1)
        variance = (jax.nn.softplus(raw + _OFFSET) + MIN_VARIANCE).clip(MIN_VARIANCE, MAX_VARIANCE)
        nll = 0.5 * (jnp.log(2 * jnp.pi * variance) + (target - mean) ** 2 / variance)
        loss = (jax.lax.stop_gradient(variance) ** start.beta * nll).sum(-1).mean(-1)
        return loss.sum(), loss

    def update(state: Any, rows: Any) -> tuple[Any, Any]:
        layers, moments = state
        gradient, loss = jax.grad(total_loss, has_aux=True)(layers, rows)
        change, moments = optimizer.update(gradient, moments, layers)
        return (optax.apply_updates(layers, change), moments), loss

    layers = [(jnp.array(weight), jnp.array(bias)) for weight, bias in start.layers]
    return (layers, optimizer.init(layers)), update
