"""Rollouts over HTTP: many action sequences imagined, and judged, in one call.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynlearn.errors import InvalidInput, NumericalFailure, TooLarge, nearest
from dynlearn.protocol.messages import InferRequest, Message
from dynlearn.protocol.names import ROLLOUT_OUTPUTS
from dynlearn.protocol.tensors import Array
from dynlearn.rollout.returns import Estimator
from dynlearn.rollout.trajectory import rollout_in_turns
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server.calls.checks import (
    as_float32,
    as_observation,
    check_actions,
    require_shape,
)
from dynlearn_services.server.calls.faults import require_finite_beginning, require_near
from dynlearn_services.server.calls.messages import decode, encode, require_answer
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.calls.rewards import choose_reward, try_reward
from dynlearn_services.server.inference.work import Pause
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service

if TYPE_CHECKING:
    from dynlearn.task import TransitionFunction

_ATTRIBUTES = {name: attribute for attribute, name in ROLLOUT_OUTPUTS.items()}
_OF_RETURNS = ("returns", "return_std")
_DIMENSIONS = ("starts", "candidates", "steps")
# What stands for a return that is not finite, which may not leave: nothing is chosen less.
_LOWEST = float(np.finfo(np.float32).min)


class _Plan(NamedTuple):
    """What is to be imagined.

    Attributes:
        observation: [S, O].
        actions: [S, P, H, A].
        context: [S, G].
        reward: what judges it, if anything does.
    """

    observation: Tensor
    actions: Tensor
    context: Tensor
    reward: TransitionFunction | None


async def roll_out(
    service: Service, model: LoadedModel, body: bytes, header_length: str | None
) -> Message:
    """Answer a rollout request.

    Raises:
        InvalidInput: a part of it is wrong; the message names the field.
        TooLarge: there are more rows, or there would be more bytes, than allowed.
        Unavailable: too much is waiting already.
        DeadlineExceeded: the caller's timeout passed before its end.
        NumericalFailure: the model gave NaN or infinity.
    """
    request = await decode(body, header_length, service.config.max_json_bytes)
    parameters = RolloutParameters.read(request.parameters)
    deadline = parameters.deadline
    model.model.require_full_state()
    default = ("mean", "covariance") if parameters.reward is None else ("returns",)
    names = [ROLLOUT_OUTPUTS[attribute] for attribute in default]
    binary = request.outputs or dict.fromkeys(names, request.binary)
    _require_outputs(tuple(binary), parameters)
    plan = _plan(service, model, request, parameters)
    _require_size(service, plan, tuple(binary), parameters)
    outputs = tuple(binary)
    found = await service.inference.run(
        model, lambda pause: _imagine(model, plan, outputs, parameters, pause), deadline
    )
    try:
        return await encode(model, found, binary, request.id)
    except NumericalFailure:
        # It may be the caller's fault.
        require_near(model, plan.observation.cpu().numpy(), plan.context.cpu().numpy())
        for name, values in found.items():
            attribute = _ATTRIBUTES[name]
            if attribute not in _OF_RETURNS:
                steps = 3 if attribute == "particles" else 2
                require_finite_beginning(np.moveaxis(values, steps, 0))
        raise


def _require_outputs(outputs: Sequence[str], parameters: RolloutParameters) -> None:
    for name in outputs:
        if name not in _ATTRIBUTES:
            raise InvalidInput(
                f"outputs: expected outputs of a rollout, got {name!r}; "
                f"{nearest(name, _ATTRIBUTES)}"
            )
        if name in _OF_RETURNS and parameters.reward is None:
            raise InvalidInput(f"parameters.reward: expected a reward for {name}, got none")


def _plan(
    service: Service, model: LoadedModel, request: InferRequest, parameters: RolloutParameters
) -> _Plan:
    tensors, spec = request.inputs, model.model.spec
    if tensors.keys() - {"context"} != {"observations", "actions"}:
        raise InvalidInput(
            "inputs: expected observations and actions, and context or not, "
            f"got {', '.join(tensors)}"
        )
    observation = as_observation("observations", tensors["observations"], spec)
    require_shape("observations", observation, ("starts",), spec.observation_size)
    actions = check_actions(
        "actions", tensors["actions"], _DIMENSIONS, spec, service.config.actions_outside
    )
    if isinstance(spec.action_space, DiscreteSpace):
        actions = spec.action_space.one_hot(actions)
    context = np.zeros((len(observation), 0), np.float32)
    if "context" in tensors:
        context = as_float32("context", tensors["context"])
    for name, values in (("actions", actions), ("context", context)):
        if len(values) != len(observation):
            raise InvalidInput(
                f"{name}: expected {len(observation)} starts, as many as observations, "
                f"got {len(values)}"
            )
    if context.ndim != 2:
        raise InvalidInput(f"context: expected shape [starts, columns], got {list(context.shape)}")
    reward = choose_reward(service.tasks, model, parameters)
    tensor = model.model.as_tensor
    plan = _Plan(model.model.as_observation(observation), tensor(actions), tensor(context), reward)
    if reward is not None:
        try_reward(reward, plan.observation, plan.actions, plan.context)
    return plan


def _require_size(
    service: Service, plan: _Plan, outputs: Sequence[str], parameters: RolloutParameters
) -> None:
    starts, candidates, horizon, _ = plan.actions.shape
    columns, particles = plan.observation.shape[1], parameters.particles
    rows = starts * candidates * particles
    if rows > service.config.max_rows:
        raise TooLarge(
            f"actions: expected at most {service.config.max_rows} particles of all sequences, "
            f"got {rows}; ask for fewer candidates or particles at a time"
        )
    if rows * horizon > service.config.max_row_steps:
        raise TooLarge(
            f"actions: expected at most {service.config.max_row_steps} steps of all particles "
            f"together, got {rows} x {horizon}; ask for fewer steps, candidates or particles"
        )
    numbers = {
        "returns": 1,
        "return_std": 1,
        "mean": horizon * columns,
        "variance": horizon * columns,
        "covariance": horizon * columns**2,
        "particles": particles * horizon * columns,
    }
    wanted = [_ATTRIBUTES[name] for name in outputs]
    size = sum(numbers[attribute] for attribute in wanted)
    if set(wanted) - set(_OF_RETURNS):
        # Moments are taken of all particles, which are kept that long.
        size = max(size, numbers["particles"])
    itemsize = plan.observation.element_size()
    require_answer(itemsize * starts * candidates * size, service.config.max_answer_bytes)


@torch.no_grad()
def _imagine(
    model: LoadedModel,
    plan: _Plan,
    outputs: Sequence[str],
    parameters: RolloutParameters,
    pause: Pause,
) -> Generator[None, None, dict[str, Array]]:
    found: dict[str, Tensor] = {}
    if any(name in _OF_RETURNS for name in outputs):
        assert plan.reward is not None
        estimator = Estimator(
            model.model,
            plan.reward,
            parameters.particles,
            parameters.propagation,
            parameters.risk_aversion,
            parameters.discount,
        )
        returns = yield from estimator.returns_in_turns(
            plan.observation, plan.actions, plan.context, parameters.seed, pause
        )
        found["returns"] = returns.score.clamp(min=_LOWEST)
        found["return_std"] = returns.std
    if any(name not in _OF_RETURNS for name in outputs):
        trajectory = yield from rollout_in_turns(
            model.model,
            plan.observation,
            plan.actions,
            parameters.particles,
            parameters.propagation,
            parameters.seed,
            pause,
        )
        for name in set(outputs) - set(_OF_RETURNS):
            found[name] = getattr(trajectory, _ATTRIBUTES[name])
    return {name: found[name].cpu().numpy() for name in outputs}
