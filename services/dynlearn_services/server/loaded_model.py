"""LoadedModel: a model version in memory, and the one thread that runs it.

Shapes: E members, N rows, O observation, A action, D predicted columns.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from dynlearn.errors import InvalidInput, nearest
from dynlearn.model import DynamicsModel
from dynlearn.protocol import OUTPUTS, ModelMetadata, ModelParameters, TensorMetadata
from dynlearn.registry import ModelVersion
from dynlearn.spaces import DiscreteSpace
from dynlearn.wire import Array

_ATTRIBUTES = {name: attribute for attribute, name in OUTPUTS.items()}
_WARM_UP_ROWS = 64

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class LoadedModel:
    """A model version by its protocol names.

    Attributes:
        name: the model's name in the registry.
        version: its concrete version.
        ready: whether it has run once, so that the next answer comes at full speed.
    """

    def __init__(self, name: str, version: str, model: DynamicsModel):
        self.name = name
        self.version = version
        self.ready = False
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"inference-{name}")

    @classmethod
    def load(cls, version: ModelVersion, device: torch.device) -> "LoadedModel":
        """Read a published model.

        Raises:
            CorruptData: a file is truncated or altered.
        """
        return cls(version.name, version.version, DynamicsModel.load(version.folder, device))

    async def run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a function on the model's thread."""
        return await asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))

    def warm_up(self) -> None:
        """Run the model once on its thread, then be ready."""
        spec = self._model.spec
        observation = np.zeros((_WARM_UP_ROWS, spec.observation_size), np.float32)
        if isinstance(spec.action_space, DiscreteSpace):
            action: Array = np.full(_WARM_UP_ROWS, spec.action_space.start)
        else:
            action = np.zeros((_WARM_UP_ROWS, spec.action_size), np.float32)
        inputs = {"observation": observation, "action": action}
        self._thread.submit(self.compute, inputs, OUTPUTS.values()).result()
        self.ready = True

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    @torch.inference_mode()
    def compute(self, inputs: Mapping[str, Array], outputs: Collection[str]) -> dict[str, Array]:
        """Return the outputs that are asked for, and compute no others.

        Args:
            inputs: ``observation`` [N, O] and ``action`` [N, A], or integers [N] or [N, 1] where
                actions are discrete; optionally ``member``, integers [N] or [N, 1], which member
                alone answers each row.
            outputs: names among the values of `dynlearn.protocol.OUTPUTS`.

        Raises:
            InvalidInput: a name, a shape or a datatype is wrong.
        """
        for name in outputs:
            if name not in _ATTRIBUTES:
                raise InvalidInput(
                    f"outputs: expected outputs of model {self.name}, got {name!r}; "
                    f"{nearest(name, _ATTRIBUTES)}"
                )
        if inputs.keys() - {"member"} != {"observation", "action"}:
            raise InvalidInput(
                "inputs: expected observation and action, and member or not, "
                f"got {', '.join(inputs)}"
            )
        observation = _as_float32("observation", inputs["observation"])
        if isinstance(self._model.spec.action_space, DiscreteSpace):
            action = _as_integers("action", inputs["action"])
        else:
            action = _as_float32("action", inputs["action"])
        member = _as_integers("member", inputs["member"]) if "member" in inputs else None
        prediction = self._model.predict(observation, action, member)
        return {name: getattr(prediction, _ATTRIBUTES[name]).cpu().numpy() for name in outputs}

    def metadata(self) -> ModelMetadata:
        """Return what the model takes and gives, and what a planner must know of it."""
        spec = self._model.spec
        targets = len(spec.target_columns)
        matrix, members = [-1, targets, targets], [spec.members, -1, targets]
        shapes = {
            "mean": [-1, targets],
            "variance": [-1, targets],
            "covariance": matrix,
            "aleatoric": matrix,
            "epistemic": matrix,
            "member_means": members,
            "member_variances": members,
            "member_scale_trils": [*members, targets],
        }
        action = (
            TensorMetadata(name="action", datatype="INT64", shape=[-1])
            if isinstance(spec.action_space, DiscreteSpace)
            else TensorMetadata(name="action", datatype="FP32", shape=[-1, spec.action_size])
        )
        return ModelMetadata(
            name=self.name,
            versions=[self.version],
            platform="dynlearn",
            inputs=[
                TensorMetadata(
                    name="observation", datatype="FP32", shape=[-1, spec.observation_size]
                ),
                action,
            ],
            outputs=[
                TensorMetadata(name=name, datatype="FP32", shape=shapes[attribute])
                for attribute, name in OUTPUTS.items()
            ],
            parameters=ModelParameters(
                observation_size=spec.observation_size,
                action_space=spec.action_space,
                observation_columns=spec.observation_columns,
                target_columns=spec.target_columns,
                members=spec.members,
                covariance="full" if spec.head == "scale_tril" else "diagonal",
                full_state=spec.full_state,
            ),
        )


def _as_float32(name: str, values: Array) -> Array:
    if values.dtype.kind != "f":
        raise InvalidInput(f"{name}: expected datatype FP32 or FP64, got integers")
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if values.dtype.itemsize > narrow.dtype.itemsize and not np.isfinite(narrow).all():
        raise InvalidInput(f"{name}: expected values within the range of FP32, got larger ones")
    return narrow


def _as_integers(name: str, values: Array) -> Array:
    if values.dtype.kind != "i":
        raise InvalidInput(f"{name}: expected datatype INT64 or INT32, got real numbers")
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim != 1:
        raise InvalidInput(f"{name}: expected shape [rows] or [rows, 1], got {list(values.shape)}")
    return values
