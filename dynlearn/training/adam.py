"""Adam over the members' parameters, without what an optimiser class does beside the arithmetic.

Shapes: E members first in every tensor.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

_FUSED_STEP = 8
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) with its usual constants and a step size given at each step."""

    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = list(parameters)
        self._mean = [
            torch.zeros_like(p, memory_format=torch.contiguous_format) for p in self.parameters
        ]
        self._square = [torch.zeros_like(mean) for mean in self._mean]
        # One count does for all, which move together.
        self._steps = torch.zeros((), device=self.parameters[0].device)
        # On a CPU the fused form rounds the last few numbers of a tensor in another way, so that a
        # member's weights would depend on which others are beside it.
        self._fused = all(p.is_cuda or p[0].numel() % _FUSED_STEP == 0 for p in self.parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move each parameter by its gradient."""
        if not self._fused:
            self._step_unfused(gradients, learning_rate)
            return
        self._steps += 1
        # What torch.optim's own function comes to, after as much work again on its arguments.
        torch._fused_adam_(
            self.parameters,
            list(gradients),
            self._mean,
            self._square,
            [],
            [self._steps] * len(self.parameters),
            lr=learning_rate,
            beta1=_BETA1,
            beta2=_BETA2,
            weight_decay=0.0,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _step_unfused(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        steps = [self._steps.clone() for _ in self.parameters]
        adam(
            self.parameters,
            list(gradients),
            self._mean,
            self._square,
            [],
            steps,
            foreach=True,
            fused=False,
            amsgrad=False,
            beta1=_BETA1,
            beta2=_BETA2,
            lr=learning_rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )
        self._steps.copy_(steps[0])

    def state(self) -> dict[str, Tensor]:
        """Return the moments by name."""
        return {
            f"{index}.{name}": moment
            for name, moments in (("exp_avg", self._mean), ("exp_avg_sq", self._square))
            for index, moment in enumerate(moments)
        }

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Go on from the `state` after so many steps.

        Raises:
            KeyError: a part is missing.
            RuntimeError: a part has another shape.
        """
        own = self.state()
        for name, moment in own.items():
            if state[name].shape != moment.shape:
                raise RuntimeError(
                    f"{name}: expected shape {list(moment.shape)}, got {list(state[name].shape)}"
                )
            moment.copy_(state[name])
        self._steps.fill_(steps)
