"""mbrl-lib's ``ModelEnv.evaluate_action_sequences`` on a ``GaussianMLP`` ensemble."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from mbrl.env.termination_fns import no_termination
from mbrl.models import GaussianMLP, ModelEnv, OneDTransitionRewardModel
from mbrl.types import TransitionBatch
from torch import Tensor

from benchmarks.race import Turn


def imagine(
    hidden: tuple[int, ...],
    members: int,
    start: Tensor,
    actions: Tensor,
    particles: int,
    propagation: str,
    reward: Callable[[Tensor], Tensor],
    turn: Turn,
) -> None:
    """Imagine without end; a lap is one call for all action sequences.

    Args:
        hidden: widths of the layers, all alike.
        members: E.
        start: the start state [O].
        actions: [P, H, A].
        particles: N.
        propagation: ``random_model`` or ``fixed_model``.
        reward: of next observations [..., O].
        turn: called between laps.
    """
    observations, columns = len(start), actions.shape[-1]
    network = GaussianMLP(
        observations + columns,
        observations,
        "cpu",
        num_layers=len(hidden),
        ensemble_size=members,
        hid_size=hidden[0],
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
        propagation_method=propagation,
    )
    model = OneDTransitionRewardModel(network, normalize=True, learned_rewards=False)
    rng = np.random.default_rng(0)
    seen, taken = (rng.standard_normal((1000, n), np.float32) for n in (observations, columns))
    never = np.zeros(1000, bool)
    model.update_normalizer(TransitionBatch(seen, taken, seen, never, never, never))
    env = ModelEnv(
        SimpleNamespace(observation_space=None, action_space=None),
        model,
        no_termination,
        lambda action, following: reward(following)[:, None],
        generator=torch.Generator(),
    )
    turn({})
    while True:
        env.evaluate_action_sequences(actions, start.numpy(), particles)
        turn({})
