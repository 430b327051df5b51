"""What callers give, checked against a model's spec.

Shapes: N rows, O observation, A action, G context, ``...`` any batch dimensions.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dynlearn.config.choices import ActionsOutside
from dynlearn.errors import InvalidInput
from dynlearn.models.spec import ModelSpec
from dynlearn.protocol.tensors import Array
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server.models.inputs import Inputs


def check_inputs(
    spec: ModelSpec,
    tensors: Mapping[str, Array],
    members: Sequence[int] | None,
    actions_outside: ActionsOutside,
    context_size: int = 0,
) -> Inputs:
    """Return the tensors of a request, of the right names, kinds and shapes.

    Args:
        spec: of the model.
        tensors: ``observation`` [N, O] and ``action`` [N, A], or integers [N] or [N, 1], or
            one-hot, where actions are discrete; optionally ``member``, integers [N] or [N, 1],
            which member alone answers each row, and ``context`` [N, G], the goal of a learned
            reward.
        members: which members make up the mixture.
        actions_outside: what becomes of actions outside their bounds.
        context_size: G.

    Raises:
        InvalidInput: a name, a shape, a datatype or a value is wrong.
    """
    if tensors.keys() - {"member", "context"} != {"observation", "action"}:
        raise InvalidInput(
            "inputs: expected observation and action, and member and context or not, "
            f"got {', '.join(tensors)}"
        )
    observation = as_observation("observation", tensors["observation"], spec)
    require_shape("observation", observation, ("rows",), spec.observation_size)
    action = check_actions("action", tensors["action"], ("rows",), spec, actions_outside)
    if len(action) != len(observation):
        raise InvalidInput(
            f"expected as many actions as observations, got {len(action)} actions "
            f"and {len(observation)} observations"
        )
    context = None
    if "context" in tensors:
        if not context_size:
            raise InvalidInput(
                "context: expected none, for this model has learned no goal's reward"
            )
        context = as_float32("context", tensors["context"])
        require_shape("context", context, ("rows",), context_size)
        if len(context) != len(observation):
            raise InvalidInput(
                f"context: expected {len(observation)} rows, as many as observations, "
                f"got {len(context)}"
            )
    member = None
    if "member" in tensors:
        member = _as_integers("member", tensors["member"], ("rows",))
        if len(member) != len(observation):
            raise InvalidInput(
                f"member: expected shape [{len(observation)}], got {list(member.shape)}"
            )
        _require_between("member", member, 0, spec.members - 1)
    if members is not None:
        if member is not None:
            raise InvalidInput("members: expected it without the input member, got both")
        if not members or len(set(members)) < len(members):
            raise InvalidInput(f"members: expected distinct members, got {list(members)}")
        _require_between("members", np.array(members), 0, spec.members - 1)
    among = None if members is None else tuple(members)
    return Inputs(observation, action, member, among, context)


def check_actions(
    name: str,
    values: Array,
    dimensions: Sequence[str],
    spec: ModelSpec,
    actions_outside: ActionsOutside,
) -> Array:
    """Return actions [..., A], or integers [...] where they are discrete, one-hot or not.

    Args:
        name: what they are called.
        values: as they came.
        dimensions: a word for each of ``...``.
        spec: of the model.
        actions_outside: what becomes of those outside their bounds.

    Raises:
        InvalidInput: a shape, a datatype or a value is wrong.
    """
    space = spec.action_space
    if isinstance(space, DiscreteSpace):
        return space.choices(values, len(dimensions), name)
    actions = as_float32(name, values)
    require_shape(name, actions, dimensions, space.size)
    low, high = (np.array(bound, np.float32) for bound in spec.action_bounds)
    if actions_outside == "clip":
        clipped: Array = actions.clip(low, high)
        return clipped
    if not ((actions >= low) & (actions <= high)).all():
        raise InvalidInput(
            f"{name}: expected values between {low.tolist()} and {high.tolist()}, got some "
            f"outside, from {actions.min()} to {actions.max()}"
        )
    return actions


def as_observation(name: str, values: Array, spec: ModelSpec) -> Array:
    """Return real numbers in the dtype that a model needs its observations in.

    Raises:
        InvalidInput: they are integers, or beyond float32.
    """
    narrow = as_float32(name, values)
    return narrow if spec.origin is None else values.astype(np.float64, copy=False)


def as_float32(name: str, values: Array) -> Array:
    """Return real numbers in float32.

    Raises:
        InvalidInput: they are integers, or beyond float32.
    """
    if values.dtype.kind != "f":
        raise InvalidInput(f"{name}: expected datatype FP32 or FP64, got integers")
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32, copy=False)
    if narrow is not values and not np.isfinite(narrow).all():
        raise InvalidInput(f"{name}: expected values within the range of FP32, got larger ones")
    return narrow


def require_shape(name: str, values: Array, dimensions: Sequence[str], columns: int) -> None:
    """Check the number of dimensions, and the length of the last.

    Raises:
        InvalidInput: one is wrong.
    """
    if values.ndim != len(dimensions) + 1 or values.shape[-1] != columns:
        raise InvalidInput(
            f"{name}: expected shape [{', '.join(dimensions)}, {columns}], got {list(values.shape)}"
        )


def _as_integers(name: str, values: Array, dimensions: Sequence[str]) -> Array:
    if values.dtype.kind != "i":
        raise InvalidInput(f"{name}: expected datatype INT64 or INT32, got real numbers")
    if values.ndim == len(dimensions) + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != len(dimensions):
        raise InvalidInput(
            f"{name}: expected shape [{', '.join(dimensions)}], got {list(values.shape)}"
        )
    return values.astype(np.int64, copy=False)


def _require_between(name: str, values: Array, least: int, most: int) -> None:
    if values.size and (values.min() < least or values.max() > most):
        raise InvalidInput(
            f"{name}: expected integers {least} to {most}, got {values.min()} to {values.max()}"
        )
