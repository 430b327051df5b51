"""Rollouts over HTTP: many action sequences imagined, and judged, in one call.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynlearn.errors import InvalidInput, NumericalFailure, TooLarge, nearest
from dynlearn.models.spec import ModelSpec
from dynlearn.protocol.messages import InferRequest, Message
from dynlearn.protocol.names import ROLLOUT_OUTPUTS
from dynlearn.protocol.tensors import Array
from dynlearn.rollout.returns import Estimator
from dynlearn.rollout.trajectory import rollout_in_turns
from dynlearn.spaces import DiscreteSpace
from dynlearn.task import LEARNED, Task
from dynlearn_services.server.calls.checks import as_float32, check_actions, require_shape
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.calls.predictions import decode, encode, require_answer
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
    request = await decode(body, header_length)
    parameters = RolloutParameters.read(request.parameters)
    deadline = parameters.deadline
    model.model.require_full_state()
    default = ("mean", "covariance") if parameters.reward is None else ("returns",)
    names = [ROLLOUT_OUTPUTS[attribute] for attribute in default]
    binary = request.outputs or dict.fromkeys(names, request.binary)
    _require_outputs(tuple(binary), parameters)
    plan = _plan(service, model, request, parameters)
    _require_size(service, plan, tuple(binary), parameters)
    pieces = _imagine(model, plan, tuple(binary), parameters)
    found = await service.inference.run(model, pieces, deadline)
    try:
        return await encode(model, found, binary, request.id)
    except NumericalFailure:
        # It may be the caller's fault.
        model.require_near(plan.observation.cpu().numpy(), plan.context.cpu().numpy())
        _require_finite_beginning(found, plan.actions.shape[2])
        raise


def _require_finite_beginning(found: Mapping[str, Array], horizon: int) -> None:
    """Blame the horizon for what is not finite, where the first step is."""
    for name, values in found.items():
        attribute = _ATTRIBUTES[name]
        if attribute in _OF_RETURNS:
            continue
        steps = np.moveaxis(values, 3 if attribute == "particles" else 2, 0)
        finite = len(list(takewhile(lambda step: np.isfinite(step).all(), steps)))
        if 0 < finite < horizon:
            raise InvalidInput(
                f"actions: expected a horizon over which the model's trajectories stay finite, got "
                f"{horizon} steps, of which {finite} are; ask for fewer"
            )


def known_rewards(tasks: Sequence[Task], spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the names of the rewards that suit a model's rollouts, by their environment."""
    if not spec.full_state:
        return {}
    fitting = _fitting(tasks, spec.observation_size)
    return {task.environment: tuple(task.rewards) for task in fitting}


def find_reward(
    tasks: Sequence[Task],
    name: str,
    environment: str | None,
    columns: int,
    others: Sequence[str] = (),
) -> TransitionFunction:
    """Return a task's reward of a name.

    Args:
        tasks: those that are installed.
        name: the reward's.
        environment: the task's environment; absent, the one task with observations of so many
            columns and such a reward.
        columns: O.
        others: names that are known beside those of tasks, to tell who misspells one.

    Raises:
        InvalidInput: none fits, or several do.
    """
    fitting = _fitting(tasks, columns)
    if environment is not None:
        fitting = [task for task in fitting if task.environment == environment]
        if not fitting:
            known = [task.environment for task in tasks]
            raise InvalidInput(
                f"parameters.environment: expected a task with {columns} observation columns, got "
                f"{environment!r}; {nearest(environment, known)}"
            )
    found = [task for task in fitting if name in task.rewards]
    if len(found) == 1:
        return found[0].reward(name)
    if found:
        raise InvalidInput(
            "parameters.environment: expected it where several tasks have such a reward: "
            f"{', '.join(task.environment for task in found)}"
        )
    known = sorted({reward for task in fitting for reward in task.rewards}.union(others))
    raise InvalidInput(
        f"parameters.reward: expected a reward of a task with {columns} observation columns, got "
        f"{name!r}; {nearest(name, known)}"
    )


def _fitting(tasks: Sequence[Task], columns: int) -> list[Task]:
    return [task for task in tasks if len(task.observation_columns) == columns]


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
    observation = as_float32("observations", tensors["observations"])
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
    reward: TransitionFunction | None = None
    if parameters.reward == LEARNED and model.reward is not None:
        reward = model.reward
    elif parameters.reward == LEARNED:
        raise InvalidInput(
            f"parameters.reward: expected a model that has learned a reward, got {model.name} "
            f"{model.version}; train one with --learn-reward"
        )
    elif parameters.reward is not None:
        reward = find_reward(
            service.tasks,
            parameters.reward,
            parameters.environment,
            spec.observation_size,
            [LEARNED] if model.reward is not None else [],
        )
    tensor = model.model.as_tensor
    plan = _Plan(tensor(observation), tensor(actions), tensor(context), reward)
    _try_reward(plan)
    return plan


@torch.inference_mode()
def _try_reward(plan: _Plan) -> None:
    """Judge one transition, so that a context that does not suit is refused before any work."""
    if plan.reward is None:
        return
    observation, context = plan.observation[:1], plan.context[:1]
    try:
        plan.reward(observation, plan.actions[:1, 0, 0], observation, context)
    except (IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"context: expected what the reward needs, such as the goal, got shape "
            f"{list(plan.context.shape)} ({reason})"
        ) from error


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
    require_answer(4 * starts * candidates * size, service.config.max_answer_bytes)


@torch.inference_mode()
def _imagine(
    model: LoadedModel, plan: _Plan, outputs: Sequence[str], parameters: RolloutParameters
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
            plan.observation, plan.actions, plan.context, parameters.seed
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
        )
        for name in set(outputs) - set(_OF_RETURNS):
            found[name] = getattr(trajectory, _ATTRIBUTES[name])
    return {name: found[name].cpu().numpy() for name in outputs}
