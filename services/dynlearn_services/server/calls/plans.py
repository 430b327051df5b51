"""Plan: what a rollout request asks for, checked.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dynlearn.errors import InvalidInput, TooLarge, nearest
from dynlearn.protocol.messages import InferRequest
from dynlearn.protocol.names import ROLLOUT_OUTPUTS
from dynlearn.protocol.tensors import Array
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server.calls.checks import (
    as_float32,
    as_observation,
    check_actions,
    require_shape,
)
from dynlearn_services.server.calls.messages import require_answer
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.calls.rewards import Judge, choose_judge
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service

ATTRIBUTES = {name: attribute for attribute, name in ROLLOUT_OUTPUTS.items()}
OF_RETURNS = ("returns", "return_std")
# What a step costs, however few its rows, is what it costs for so many.
_LEAST_ROWS = 256
_DIMENSIONS = ("starts", "candidates", "steps")


class Plan(NamedTuple):
    """What is to be imagined, and asked of it.

    Attributes:
        observation: [S, O].
        actions: [S, P, H, A].
        context: [S, G].
        judge: what judges it, if anything does.
        outputs: the names of what is asked for, each with whether it travels in binary.
        parameters: how.
    """

    observation: Array
    actions: Array
    context: Array
    judge: Judge | None
    outputs: dict[str, bool]
    parameters: RolloutParameters

    @property
    def returns(self) -> list[str]:
        """Those outputs that a reward gives."""
        return [name for name in self.outputs if ATTRIBUTES[name] in OF_RETURNS]

    @property
    def states(self) -> list[str]:
        """Those outputs that are of the imagined states."""
        return [name for name in self.outputs if ATTRIBUTES[name] not in OF_RETURNS]


def read_plan(
    service: Service, model: LoadedModel, request: InferRequest, parameters: RolloutParameters
) -> Plan:
    """Return what a request asks for.

    Raises:
        InvalidInput: a part of it is wrong; the message names the field.
        TooLarge: there are more rows, or there would be more bytes, than allowed.
    """
    model.model.spec.require_full_state()
    default = ("mean", "covariance") if parameters.reward is None else ("returns",)
    names = [ROLLOUT_OUTPUTS[attribute] for attribute in default]
    outputs = request.outputs or dict.fromkeys(names, request.binary)
    _require_outputs(tuple(outputs), parameters)
    judge = choose_judge(service.tasks, model, parameters)
    plan = Plan(*_read_tensors(service, model, request, judge), judge, outputs, parameters)
    _require_size(service, plan)
    return plan


def _require_outputs(outputs: Sequence[str], parameters: RolloutParameters) -> None:
    for name in outputs:
        if name not in ATTRIBUTES:
            raise InvalidInput(
                f"outputs: expected outputs of a rollout, got {name!r}; {nearest(name, ATTRIBUTES)}"
            )
        if ATTRIBUTES[name] in OF_RETURNS and parameters.reward is None:
            raise InvalidInput(f"parameters.reward: expected a reward for {name}, got none")


def _read_tensors(
    service: Service, model: LoadedModel, request: InferRequest, judge: Judge | None
) -> tuple[Array, Array, Array]:
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
    if judge is not None:
        judge.require_context(context.shape[1])
    return observation, actions, context


def _require_size(service: Service, plan: Plan) -> None:
    starts, candidates, horizon, _ = plan.actions.shape
    columns, particles = plan.observation.shape[1], plan.parameters.particles
    rows = starts * candidates * particles
    if rows > service.config.max_rows:
        raise TooLarge(
            f"actions: expected at most {service.config.max_rows} particles of all sequences, "
            f"got {rows}; ask for fewer candidates or particles at a time"
        )
    if max(rows, _LEAST_ROWS) * horizon > service.config.max_row_steps:
        raise TooLarge(
            f"actions: expected at most {service.config.max_row_steps} steps of all particles "
            f"together, got {rows} x {horizon}, where a step counts as {_LEAST_ROWS} at the least; "
            "ask for fewer steps, candidates or particles"
        )
    numbers = {
        "returns": 1,
        "return_std": 1,
        "mean": horizon * columns,
        "variance": horizon * columns,
        "covariance": horizon * columns**2,
        "particles": particles * horizon * columns,
    }
    size = sum(numbers[ATTRIBUTES[name]] for name in plan.outputs)
    if plan.states:
        # Moments are taken of all particles, which are kept that long.
        size = max(size, numbers["particles"])
    itemsize = plan.observation.itemsize
    require_answer(itemsize * starts * candidates * size, service.config.max_answer_bytes)
