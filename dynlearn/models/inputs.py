"""What callers give a model, as tensors.

Shapes: B rows, O observation, A action, ``...`` any batch dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn.models.spec import ModelSpec
from dynlearn.numbers import holds_flags
from dynlearn.spaces import ActionSpace, DiscreteSpace


def as_tensor(values: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an array or a tensor on a device, in float32 or another dtype of real numbers.

    Raises:
        InvalidInput: the values are not numbers, or rows differ in length.
    """
    try:
        if not isinstance(values, Tensor):
            given = np.asarray(values)
            if given.dtype.kind not in "iuf" or holds_flags(values):
                raise TypeError(f"{given.dtype}")
            # Torch takes neither read-only nor reversed nor big-endian arrays.
            kind = np.float64 if dtype == torch.float64 else np.float32
            values = np.require(given, kind, ["C", "W"])
        elif values.dtype == torch.bool or values.is_complex():
            raise TypeError(f"{values.dtype}")
        return torch.as_tensor(values, dtype=dtype, device=device)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected an array of numbers, got {error}") from error


def encode_actions(space: ActionSpace, actions: Any, rank: int) -> Any:
    """Return the choices of a discrete space one-hot, and anything else as it is.

    Args:
        space: of the actions.
        actions: choices as integers [...] or [..., 1], or one-hot [..., A].
        rank: how many dimensions ``...`` are.

    Raises:
        InvalidInput: one is not of the space.
    """
    if not isinstance(space, DiscreteSpace):
        return actions
    try:
        given = actions.cpu() if isinstance(actions, Tensor) else actions
        return space.one_hot(space.choices(given, rank))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"action: expected rows of one length ({error})") from error


def as_observation(spec: ModelSpec, values: Any, device: torch.device) -> Tensor:
    """Return observations as a tensor in the dtype that the spec needs, on a device.

    Raises:
        InvalidInput: the values are not numbers, or rows differ in length.
    """
    return as_tensor(values, device, torch.float32 if spec.origin is None else torch.float64)


def check_columns(spec: ModelSpec, observation: Tensor, action: Tensor) -> None:
    """Check that both are [..., columns of the spec].

    Raises:
        InvalidInput: they are not.
    """
    _check_columns(spec, observation, action, "...")


def check_rows(
    spec: ModelSpec, observation: Any, action: Any, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return observations [B, O] and encoded actions [B, A] as tensors on a device.

    Raises:
        InvalidInput: a shape is wrong, or they are not numbers.
    """
    observation = as_observation(spec, observation, device)
    action = as_tensor(encode_actions(spec.action_space, action, 1), device)
    _check_columns(spec, observation, action, "rows")
    if len(observation) != len(action):
        raise InvalidInput(
            f"expected as many actions as observations, got {len(action)} actions "
            f"and {len(observation)} observations"
        )
    return observation, action


def check_member(member: Any, rows: int, members: int, device: torch.device) -> Tensor:
    """Return which of so many members answers each row [B], as integers on a device.

    Raises:
        InvalidInput: they are no integers, there are not as many as rows, or there is no such
            member.
    """
    has_flags = holds_flags(member)
    if not isinstance(member, Tensor):
        member = torch.as_tensor(np.require(member, requirements=["C", "W"]))
    kind = torch.bool if has_flags else member.dtype
    is_whole = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    if member.numel() and not is_whole:
        raise InvalidInput(f"member: expected integers, got {kind}")
    chosen: Tensor = member.to(device, torch.int64)
    if chosen.shape == (rows, 1):
        chosen = chosen[:, 0]
    if chosen.shape != (rows,):
        raise InvalidInput(f"member: expected shape [{rows}], got {list(chosen.shape)}")
    if not ((chosen >= 0) & (chosen < members)).all():
        raise InvalidInput(
            f"member: expected 0 to {members - 1}, got {chosen.min()} to {chosen.max()}"
        )
    return chosen


def _check_columns(spec: ModelSpec, observation: Tensor, action: Tensor, rows: str) -> None:
    for name, tensor, size in (
        ("observation", observation, spec.observation_size),
        ("action", action, spec.action_size),
    ):
        wrong_rank = rows == "rows" and tensor.dim() != 2
        if not tensor.dim() or tensor.shape[-1] != size or wrong_rank:
            raise InvalidInput(f"{name}: expected shape [{rows}, {size}], got {list(tensor.shape)}")
