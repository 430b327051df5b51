"""The cross-entropy method over action sequences, for many start states at once.

Shapes: S start states, P candidates, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlearn.config import PlannerConfig
from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.numbers import check_integer
from dynlearn.rollout.returns import Estimator
from dynlearn.seeds import seeded
from dynlearn.spaces import ActionSpace, require_bounded_reals

_MIN_STD = 0.05
_INITIAL_STD = 0.5


class CEM:
    """Plans by refitting a Gaussian over action sequences to the best of its samples.

    Each call to `plan` starts from the last plan, shifted by one step (warm start), draws
    candidates, imagines each with particles, refits mean and standard deviation to the elites, and
    after the last iteration gives the first action of the best sequence seen (de Boer et al. 2005;
    in the form of Chua et al. 2018, section 6). Standard deviations are in half action ranges.
    """

    def __init__(
        self,
        estimator: Estimator,
        action_space: ActionSpace,
        settings: PlannerConfig,
        seed: int = 0,
    ):
        """Prepare to plan.

        Args:
            estimator: what is imagined with, what is planned for, and how it is judged.
            action_space: of the actions.
            settings: of the search.
            seed: of the candidates, and of the imagination's seeds.

        Raises:
            InvalidInput: actions are discrete, in part or whole, or unbounded, or there are more
                elites than candidates.
        """
        box = require_bounded_reals(action_space)
        if settings.elites > settings.candidates:
            raise InvalidInput(
                f"expected at most {settings.candidates} elites, got {settings.elites}; "
                "raise candidates"
            )
        self.estimator = estimator
        self.settings = settings
        device = estimator.dynamics.device
        self._low = torch.tensor(box.low, device=device)
        self._high = torch.tensor(box.high, device=device)
        self._generator = seeded(seed)
        self._plan: Tensor | None = None

    def reset(self) -> None:
        """Forget the last plan, as at the start of an episode."""
        self._plan = None

    def plan(self, observation: Any, context: Any, steps_left: int | None = None) -> Tensor:
        """Return an action [S, A] for each of the start states.

        The action of a start state without a candidate of finite return is NaN; it takes nothing
        from the others.

        Args:
            observation: an array or a tensor [S, O].
            context: likewise [S, G].
            steps_left: steps to the end of the episode; the plan does not look further.

        Raises:
            InvalidInput: no steps are left.
            NumericalFailure: no candidate of any start state has a finite return.
        """
        observation, context = self._as_tensor(observation), self._as_tensor(context)
        # A copy, for callers who differentiate or write in place.
        return self._search(observation, context, steps_left).clone()

    def _as_tensor(self, values: Any) -> Tensor:
        """Return numbers on the dynamics' device, in the dtype that they know observations in."""
        dynamics = self.estimator.dynamics
        dtype = getattr(dynamics, "observation_dtype", torch.float32)
        given = values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))
        return given.to(dynamics.device, dtype)

    @torch.no_grad()
    def _search(self, observation: Tensor, context: Tensor, steps_left: int | None) -> Tensor:
        settings = self.settings
        horizon = settings.horizon
        if steps_left is not None:
            horizon = min(horizon, check_integer("steps_left", steps_left, 1))
        mean = self._warm_start(len(observation), horizon)
        std = torch.full_like(mean, _INITIAL_STD)
        best, best_return = mean, mean.new_full((len(mean),), -torch.inf)
        for _ in range(settings.iterations):
            candidates = self._draw(mean, std)
            seed = int(torch.randint(2**63 - 1, (), generator=self._generator))
            returns = self.estimator.returns(
                observation, self._in_original_units(candidates), context, seed
            ).score
            # NaN would rank first.
            returns = returns.masked_fill(~returns.isfinite(), -torch.inf)
            top = returns.topk(settings.elites, dim=1)
            elites = candidates.gather(
                1, top.indices[..., None, None].expand(-1, -1, *mean.shape[1:])
            )
            # An elite without a finite return must not shape the search; the best stands in for it.
            elites = torch.where(top.values.isfinite()[..., None, None], elites, elites[:, :1])
            better = top.values[:, 0] > best_return
            best = torch.where(better[:, None, None], elites[:, 0], best)
            best_return = torch.where(better, top.values[:, 0], best_return)
            found = top.values[:, 0].isfinite()[:, None, None]
            mean = torch.where(found, elites.mean(1), mean)
            std = torch.where(found, elites.std(1, correction=0).clamp_min(_MIN_STD), std)
        lost = best_return == -torch.inf
        if lost.all():
            raise NumericalFailure(
                "expected finite imagined returns, got none for any start state; the state is far "
                "from all that the model has seen, or the model is to be trained anew"
            )
        self._plan = best
        return self._in_original_units(best[:, 0]).masked_fill_(lost[:, None], torch.nan)

    def _in_original_units(self, actions: Tensor) -> Tensor:
        """Return actions [..., A] given in half action ranges; a lerp never leaves the bounds."""
        return torch.lerp(self._low, self._high, (actions + 1) / 2)

    def _warm_start(self, starts: int, horizon: int) -> Tensor:
        """Return the last plan without its first step, at rest where it says nothing."""
        mean = torch.zeros(starts, horizon, len(self._low), device=self._low.device)
        if self._plan is not None and len(self._plan) == starts:
            kept = self._plan[:, 1 : horizon + 1]
            mean[:, : kept.shape[1]] = kept
        return mean

    def _draw(self, mean: Tensor, std: Tensor) -> Tensor:
        """Return candidates [S, P, H, A] in half action ranges; the first is the mean itself."""
        starts, horizon, size = mean.shape
        noise = torch.randn(
            starts, self.settings.candidates, horizon, size, generator=self._generator
        ).to(mean.device)
        noise[:, 0] = 0
        return (mean[:, None] + std[:, None] * noise).clamp(-1, 1)
