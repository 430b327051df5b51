"""What action sequences are worth in imagination.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context,
C sequences that are imagined at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from sys import float_info
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn.numbers import check_integer
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics, bounded
from dynlearn.rollout.imagination import Imagination
from dynlearn.rollout.schedule import finish

if TYPE_CHECKING:
    from dynlearn.config.choices import Propagation
    from dynlearn.task import TransitionFunction


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


@runtime_checkable
class JudgingDynamics(Protocol):
    """Dynamics that can judge action sequences by themselves: one request to a server."""

    def judge(
        self,
        estimator: Estimator,
        observation: Tensor,
        actions: Tensor,
        context: Tensor,
        seed: int,
    ) -> Returns:
        """Do what `Estimator.returns` does, with a reward that they know by its name."""


@dataclass(frozen=True)
class Estimator:
    """How action sequences are judged: whatever a planner must know but the search.

    The risk is the standard deviation of the return over particles, times ``risk_aversion``. A
    planner looks for the places where a model errs to its favour; there the members disagree, and
    the risk makes them unattractive.

    Attributes:
        dynamics: steps the full state.
        reward: of (observation, action, next_observation, context); or the name of one that the
            dynamics know, which are then a `JudgingDynamics`.
        particles: N, imagined trajectories of each sequence.
        propagation: how members are chosen along the way.
        risk_aversion: standard deviations to subtract from the mean.
        discount: of each step's reward relative to the one before.
    """

    dynamics: Dynamics | GroupedDynamics
    reward: TransitionFunction | str
    particles: int = 20
    propagation: Propagation = "tsinf"
    risk_aversion: float = 0.0
    discount: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidInput: there is less than one particle, a discount beyond one, or a risk that
                would be sought.
        """
        check_integer("particles", self.particles, 1)
        for name, value, most in (
            ("risk_aversion", self.risk_aversion, float_info.max),
            ("discount", self.discount, 1.0),
        ):
            if isinstance(value, bool) or not 0 <= value <= most:
                raise InvalidInput(f"{name}: expected a number from 0 to {most:g}, got {value!r}")

    def returns(self, observation: Tensor, actions: Tensor, context: Tensor, seed: int) -> Returns:
        """Return what each action sequence is worth.

        Args:
            observation: start states [S, O].
            actions: [S, P, H, A].
            context: of each start state, [S, G].
            seed: of members and noise.

        Raises:
            InvalidInput: a shape or the seed is wrong, there is less than one particle, or only a
                reward's name.
        """
        if isinstance(self.reward, str) and isinstance(self.dynamics, JudgingDynamics):
            return self.dynamics.judge(self, observation, actions, context, seed)
        return finish(self.returns_in_turns(observation, actions, context, seed))

    @torch.no_grad()
    def returns_in_turns(
        self,
        observation: Tensor,
        actions: Tensor,
        context: Tensor,
        seed: int,
        pause: Callable[[], bool] = lambda: False,
    ) -> Generator[None, None, Returns]:
        """Do what `returns` does, and yield whenever ``pause`` says so."""
        reward = self.reward
        if isinstance(reward, str):
            raise InvalidInput(f"reward: expected a function in process, got the name {reward!r}")
        actions = bounded(self.dynamics, actions)
        imagination = Imagination(
            self.dynamics, observation, actions, self.particles, self.propagation, seed
        )
        mean, std = observation.new_empty(2, *actions.shape[:2])

        def imagine(chunks: range) -> Iterator[None]:
            sequences = imagination.sequences(chunks)
            start = imagination.start_of(sequences)
            shape = len(start), imagination.particles, -1
            before = observation[start, None].expand(shape)
            goal = context[start, None].expand(shape)
            total, check = before.new_zeros(2, *shape[:2])
            taken = actions.flatten(0, 1)[sequences]
            for step, after in enumerate(imagination.steps(chunks)):
                rewards = reward(before, taken[:, step, None].expand(shape), after, goal)
                total.add_(rewards, alpha=self.discount**step)
                # The states too: a sparse reward, -(distance > tolerance), takes NaN for a
                # success. A sum is finite only if all its terms are, and needs no flags.
                check += after.sum(-1)
                before = after
                yield
            of_chunk = torch.std_mean(total, -1, correction=0)
            lost = ~(of_chunk[0] + of_chunk[1] + check.sum(-1)).isfinite()
            std.flatten()[sequences] = of_chunk[0].masked_fill_(lost, 0)
            mean.flatten()[sequences] = of_chunk[1].masked_fill_(lost, -torch.inf)

        yield from imagination.turns(imagine, pause)
        return Returns(mean, std, mean - self.risk_aversion * std)


def estimate_returns(
    dynamics: Dynamics | GroupedDynamics,
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
    """Return what each action sequence is worth; see `Estimator` and `Estimator.returns`."""
    estimator = Estimator(dynamics, reward, particles, propagation, risk_aversion, discount)
    return estimator.returns(observation, actions, context, seed)
