"""What action sequences are worth in imagination.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context,
C sequences that are imagined at once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn.rollout.imagination import Dynamics, Imagination, finish

if TYPE_CHECKING:
    from dynlearn.config.choices import Propagation
    from dynlearn.task import TransitionFunction


@runtime_checkable
class JudgingDynamics(Protocol):
    """Dynamics that can judge action sequences by themselves: one request to a server."""

    def judge(
        self,
        reward: str,
        observation: Tensor,
        actions: Tensor,
        context: Tensor,
        particles: int,
        propagation: Propagation,
        risk_aversion: float,
        seed: int,
        discount: float,
    ) -> Returns:
        """Do what `estimate_returns` does, with a reward that they know by its name."""


class Returns(NamedTuple):
    """What each action sequence is worth.

    A sequence whose imagined states or rewards leave the finite numbers is worth minus infinity
    for certain, so that it can never be chosen.

    Attributes:
        mean: of the discounted sum of rewards over the particles, [S, P].
        std: its standard deviation over the particles, [S, P].
        score: the mean less the risk, [S, P].
    """

    mean: Tensor
    std: Tensor
    score: Tensor


def estimate_returns(
    dynamics: Dynamics,
    reward: TransitionFunction | str,
    observation: Tensor,
    actions: Tensor,
    context: Tensor,
    particles: int,
    propagation: Propagation,
    risk_aversion: float,
    seed: int,
    discount: float = 1.0,
) -> Returns:
    """Return what each action sequence is worth.

    The risk is the standard deviation of the return over particles, times ``risk_aversion``. A
    planner looks for the places where a model errs to its favour; there the members disagree, and
    the risk makes them unattractive.

    Args:
        dynamics: steps the full state.
        reward: of (observation, action, next_observation, context); or the name of one that the
            dynamics know, which are then a `JudgingDynamics`.
        observation: start states [S, O].
        actions: [S, P, H, A].
        context: of each start state, [S, G].
        particles: imagined trajectories of each sequence.
        propagation: how members are chosen along the way.
        risk_aversion: standard deviations to subtract from the mean.
        seed: of members and noise.
        discount: of each step's reward relative to the one before.

    Raises:
        InvalidInput: a shape or the seed is wrong, ``particles`` is below one, or there is only a
            reward's name.
    """
    if isinstance(reward, str):
        if not isinstance(dynamics, JudgingDynamics):
            raise InvalidInput(f"reward: expected a function in process, got the name {reward!r}")
        return dynamics.judge(
            reward,
            observation,
            actions,
            context,
            particles,
            propagation,
            risk_aversion,
            seed,
            discount,
        )
    return finish(
        returns_in_turns(
            dynamics,
            reward,
            observation,
            actions,
            context,
            particles,
            propagation,
            risk_aversion,
            seed,
            discount,
        )
    )


@torch.inference_mode()
def returns_in_turns(
    dynamics: Dynamics,
    reward: TransitionFunction,
    observation: Tensor,
    actions: Tensor,
    context: Tensor,
    particles: int,
    propagation: Propagation,
    risk_aversion: float,
    seed: int,
    discount: float = 1.0,
) -> Generator[None, None, Returns]:
    """Do what `estimate_returns` does a little at a time, between yields."""
    imagination = Imagination(dynamics, observation, actions, particles, propagation, seed)
    mean, std = observation.new_empty(2, *actions.shape[:2])

    def imagine(chunks: range) -> None:
        sequences = imagination.sequences(chunks)
        start = imagination.start_of(sequences)
        shape = len(start), imagination.particles, -1
        before = observation[start, None].expand(shape)
        goal = context[start, None].expand(shape)
        total, check = before.new_zeros(2, *shape[:2])
        steps = actions.flatten(0, 1)[sequences].unbind(1)
        for step, after in enumerate(imagination.steps(chunks)):
            rewards = reward(before, steps[step][:, None].expand(shape), after, goal)
            total.add_(rewards, alpha=discount**step)
            # The states too: a sparse reward, -(distance > tolerance), takes NaN for a success. A
            # sum is finite only if all its terms are, and needs no array of flags.
            check += after.sum(-1)
            before = after
        of_chunk = torch.std_mean(total, -1, correction=0)
        lost = ~(of_chunk[0] + of_chunk[1] + check.sum(-1)).isfinite()
        std.flatten()[sequences] = of_chunk[0].masked_fill_(lost, 0)
        mean.flatten()[sequences] = of_chunk[1].masked_fill_(lost, -torch.inf)

    yield from imagination.turns(imagine)
    return Returns(mean, std, mean - risk_aversion * std)
