"""Examples for the API's page: bodies that the served model answers as they stand."""

from typing import Any

import numpy as np

from dynlearn.errors import Unavailable
from dynlearn.protocol.names import OUTPUTS, ROLLOUT_OUTPUTS
from dynlearn.protocol.tensors import Array
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service


def examples_of(service: Service) -> dict[str, Any]:
    """Return what can be sent as it stands, by what it is an example of.

    Nothing where there are tokens: the page is open, and what is served is not.
    """
    if service.access.asks_for_tokens():
        return {}
    try:
        model = service.models.find(service.models.names[0])
    except (IndexError, Unavailable):
        return {}
    return {"name": model.name, "version": model.version, **_bodies(model)}


def _bodies(model: LoadedModel) -> dict[str, Any]:
    spec = model.model.spec
    observation = np.zeros(spec.observation_size, np.float32)
    space = spec.action_space
    action: Array = (
        np.array(space.start)
        if isinstance(space, DiscreteSpace)
        else _to_float32(np.clip(np.zeros(space.size), space.low, space.high))
    )
    if not np.isfinite(action).all():
        return {}
    infer = {
        "inputs": [
            _tensor("observation", observation[None]),
            _tensor("action", action[None]),
        ],
        "outputs": [{"name": OUTPUTS["mean"]}, {"name": OUTPUTS["variance"]}],
    }
    if not spec.full_state:
        return {"infer": infer}
    # Two sequences of three steps from one state.
    actions = np.broadcast_to(action, (1, 2, 3, *action.shape))
    rollout = {
        "inputs": [_tensor("observations", observation[None]), _tensor("actions", actions)],
        "outputs": [{"name": ROLLOUT_OUTPUTS["mean"]}, {"name": ROLLOUT_OUTPUTS["variance"]}],
        "parameters": {"particles": 10, "propagation": "ts1", "seed": 0},
    }
    return {"infer": infer, "rollout": rollout}


def _to_float32(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _tensor(name: str, values: Array) -> dict[str, Any]:
    datatype = "INT64" if values.dtype.kind == "i" else "FP32"
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(values.shape),
        "data": values.tolist(),
    }
