"""Rollouts over HTTP: many action sequences imagined, and judged, in one call.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dynlearn.errors import NumericalFailure
from dynlearn.protocol.messages import Message
from dynlearn.protocol.tensors import Array
from dynlearn.rollout.returns import Estimator
from dynlearn.rollout.trajectory import Trajectory, rollout_in_turns
from dynlearn_services.server.calls.faults import require_finite_beginning, require_near
from dynlearn_services.server.calls.messages import aside, decode, encode
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.calls.plans import ATTRIBUTES, Plan, read_plan
from dynlearn_services.server.inference.work import Pause
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service

# What stands for a return that is not finite, which may not leave: nothing is chosen less.
_LOWEST = float(np.finfo(np.float32).min)
# What moments are taken of, or are, at once; a few milliseconds.
_MOMENT_NUMBERS = 2**22


async def roll_out(
    service: Service, model: LoadedModel, body: bytes, header_length: str | None
) -> Message:
    """Answer a rollout request.

    Raises:
        InvalidInput: a part of it is wrong; the message names the field.
        TooLarge: there are more rows, or there would be more bytes, than allowed.
        Unavailable: too much is waiting already, or memory is short.
        DeadlineExceeded: the caller's timeout passed before its end.
        NumericalFailure: the model gave NaN or infinity.
    """
    request = await decode(body, header_length, service.config.max_json_bytes, service.reader)
    parameters = RolloutParameters.read(request.parameters)
    deadline = parameters.deadline
    plan = await aside(len(body), partial(read_plan, service, model, request, parameters))
    found = await service.inference.run(model, partial(_imagine, model, plan), deadline)
    try:
        return await encode(model, found, plan.outputs, request.id)
    except NumericalFailure:
        # It may be the caller's fault.
        require_near(model, plan.observation, plan.context)
        for name in plan.states:
            steps = 3 if ATTRIBUTES[name] == "particles" else 2
            require_finite_beginning(np.moveaxis(found[name], steps, 0))
        raise


@torch.no_grad()
def _imagine(
    model: LoadedModel, plan: Plan, pause: Pause
) -> Generator[None, None, dict[str, Array]]:
    dynamics, parameters = model.model, plan.parameters
    observation = dynamics.as_observation(plan.observation)
    actions, context = dynamics.as_tensor(plan.actions), dynamics.as_tensor(plan.context)
    found: dict[str, Array] = {}
    if plan.judge is not None:
        plan.judge.try_out(observation, actions, context)
    if plan.judge is not None and plan.returns:
        estimator = Estimator(
            dynamics,
            plan.judge.reward,
            parameters.particles,
            parameters.propagation,
            parameters.risk_aversion,
            parameters.discount,
        )
        returns = yield from estimator.returns_in_turns(
            observation, actions, context, parameters.seed, pause
        )
        values = {"returns": returns.score.clamp(min=_LOWEST), "return_std": returns.std}
        found |= {name: values[ATTRIBUTES[name]].cpu().numpy() for name in plan.returns}
    if plan.states:
        trajectory = yield from rollout_in_turns(
            dynamics,
            observation,
            actions,
            parameters.particles,
            parameters.propagation,
            parameters.seed,
            pause,
        )
        for name in plan.states:
            found[name] = yield from _of_all(trajectory.particles, ATTRIBUTES[name], pause)
    return {name: found[name] for name in plan.outputs}


def _of_all(particles: Tensor, attribute: str, pause: Pause) -> Generator[None, None, Array]:
    """Return what a trajectory has of an attribute, taken of some sequences at a time.

    Args:
        particles: [S, P, N, H, O].
        attribute: of `Trajectory`.
        pause: whether to yield.
    """
    if attribute == "particles":
        all_of_them: Array = particles.cpu().numpy()
        return all_of_them
    starts, candidates, count, horizon, columns = particles.shape
    most = max(1, _MOMENT_NUMBERS // (horizon * columns * max(count, columns)))
    parts = []
    for some in torch.split(particles.flatten(0, 1), most):
        parts.append(getattr(Trajectory(some[None]), attribute)[0].cpu())
        if pause():
            yield
    whole: Array = torch.cat(parts).numpy()
    return whole.reshape(starts, candidates, *whole.shape[1:])
