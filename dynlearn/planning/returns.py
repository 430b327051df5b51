"""What action sequences are worth in imagination.

Shapes: S start states, P candidates, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynlearn.rollout import Dynamics, rollout

if TYPE_CHECKING:
    from dynlearn.config import Propagation
    from dynlearn.task import TransitionFunction


@torch.inference_mode()
def estimate_returns(
    dynamics: Dynamics,
    reward: TransitionFunction,
    observation: Tensor,
    actions: Tensor,
    context: Tensor,
    particles: int,
    propagation: Propagation,
    risk_aversion: float,
    generator: torch.Generator,
) -> Tensor:
    """Return what each action sequence is worth, [S, P]: its mean return less its risk.

    The risk is the standard deviation of the sum of rewards over particles, times
    ``risk_aversion``. A planner looks for the places where a model errs to its favour; there the
    members disagree, and the risk makes them unattractive. A sequence whose imagined states or
    rewards leave the finite numbers is worth minus infinity, so that it can never be chosen.

    Args:
        dynamics: steps the full state.
        reward: of (observation, action, next_observation, context).
        observation: start states [S, O].
        actions: [S, P, H, A].
        context: of each start state, [S, G].
        particles: imagined trajectories of each sequence.
        propagation: how members are chosen along the way.
        risk_aversion: standard deviations to subtract from the mean.
        generator: of members and noise.
    """
    following = rollout(dynamics, observation, actions, particles, propagation, generator).particles
    before = torch.cat(
        (
            observation[:, None, None, None].expand(*following.shape[:3], 1, -1),
            following[:, :, :, :-1],
        ),
        3,
    )
    action = actions[:, :, None].expand(*following.shape[:4], -1)
    goal = context[:, None, None, None].expand(*following.shape[:4], -1)
    rewards = reward(before, action, following, goal)
    std, mean = torch.std_mean(rewards.sum(-1), -1, correction=0)
    returns = mean - risk_aversion * std
    # The states too: a sparse reward, -(distance > tolerance), takes NaN for a success. A sum is
    # finite only if all its terms are, and needs no array of flags.
    finite = returns.isfinite() & following.sum((2, 3, 4)).isfinite()
    return torch.where(finite, returns, -torch.inf)
