"""ModelCalls: what can be asked of a served model, and how its answers are read.

Shapes: E members, B batch, O observation, A action, D predicted columns, S start states,
P candidates, N particles, H horizon, G context.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from secrets import token_hex
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from dynlearn.client.answers import (
    RemotePrediction,
    RemoteRollout,
    RemoteSample,
    RemoteSpec,
    Values,
)
from dynlearn.client.arguments import as_choices, as_float, as_integers
from dynlearn.client.exchange import Deadline, Exchange, Server
from dynlearn.errors import CorruptData, InvalidInput, Unavailable, nearest
from dynlearn.numbers import check_integer
from dynlearn.protocol.messages import HEADER_LENGTH, Message, decode_response, encode_request
from dynlearn.protocol.metadata import ModelMetadata
from dynlearn.protocol.names import OUTPUTS, REWARD_MEAN, ROLLOUT_OUTPUTS, SAMPLE, SAMPLE_MEMBER
from dynlearn.protocol.tensors import Array
from dynlearn.spaces import DiscreteSpace


class ModelCalls:
    """The calls to one model, each an exchange that is still to be carried out."""

    def __init__(self, server: Server, model: str, version: str | int | None, as_torch: bool):
        self.server = server
        self._model = model
        self._version = version = None if version is None else str(version)
        self._as_torch = as_torch
        if as_torch:
            _import_torch()
        path = f"models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        self._metadata_url = httpx.URL(f"{server.url}/v2/{path}")
        self._infer_url = httpx.URL(f"{server.url}/v2/{path}/infer")
        self._rollout_url = httpx.URL(f"{server.url}/v1/{path}/rollout")
        self._spec: RemoteSpec | None = None

    def spec(self) -> Exchange[RemoteSpec]:
        """Describe the model, asking once."""
        return (yield from self._known_spec(self.server.deadline()))

    def pinned(self) -> Exchange[Self]:
        """Return the calls to the version that is served now, and to no other."""
        spec = yield from self._fetch_spec(self.server.deadline())
        calls = type(self)(self.server, self._model, spec.version, self._as_torch)
        calls._spec = spec
        return calls

    def predict(
        self,
        observation: Any,
        action: Any,
        outputs: Sequence[str],
        member: Any,
        members: Any,
        context: Any,
    ) -> Exchange[RemotePrediction]:
        """See `DynamicsClient.predict`."""
        deadline = self.server.deadline()
        names = _choose({**OUTPUTS, "reward_mean": REWARD_MEAN}, outputs)
        inputs = yield from self._rows(observation, action, deadline)
        if member is not None:
            inputs["member"] = as_integers("member", member)
        if context is not None:
            inputs["context"] = as_float("context", context)
        parameters = {}
        if members is not None:
            parameters["members"] = as_integers("members", members).tolist()
        return RemotePrediction(
            *(yield from self._compute(self._infer_url, inputs, names, parameters, deadline))
        )

    def sample(self, observation: Any, action: Any, seed: int) -> Exchange[RemoteSample]:
        """See `DynamicsClient.sample`."""
        deadline = self.server.deadline()
        names = {"value": SAMPLE, "member": SAMPLE_MEMBER}
        parameters = {"seed": check_integer("seed", seed)}
        inputs = yield from self._rows(observation, action, deadline)
        drawn, version = yield from self._compute(
            self._infer_url, inputs, names, parameters, deadline
        )
        return RemoteSample(drawn["value"], drawn["member"], version)

    def rollout(
        self,
        observations: Any,
        actions: Any,
        context: Any,
        outputs: Sequence[str] | None,
        *,
        particles: int,
        propagation: str,
        seed: int,
        reward: str | None,
        environment: str | None,
        discount: float,
        risk_aversion: float,
    ) -> Exchange[RemoteRollout]:
        """See `DynamicsClient.rollout`."""
        deadline = self.server.deadline()
        if outputs is None:
            outputs = ("mean", "covariance") if reward is None else ("returns",)
        names = _choose(ROLLOUT_OUTPUTS, outputs)
        parameters: dict[str, Any] = {
            "particles": check_integer("particles", particles),
            "propagation": propagation,
            "seed": check_integer("seed", seed),
            "discount": float(discount),
            "risk_aversion": float(risk_aversion),
        }
        if reward is not None:
            parameters["reward"] = reward
        if environment is not None:
            parameters["environment"] = environment
        inputs = {
            "observations": (yield from self._observations("observations", observations, deadline)),
            "actions": (yield from self._actions("actions", actions, 3, deadline)),
        }
        if context is not None:
            inputs["context"] = as_float("context", context)
        return RemoteRollout(
            *(yield from self._compute(self._rollout_url, inputs, names, parameters, deadline))
        )

    def _known_spec(self, deadline: Deadline) -> Exchange[RemoteSpec]:
        if self._spec is None:
            self._spec = yield from self._fetch_spec(deadline)
        return self._spec

    def _fetch_spec(self, deadline: Deadline) -> Exchange[RemoteSpec]:
        answer = yield from self.server.ask(self._metadata_url, deadline)
        try:
            metadata = ModelMetadata.model_validate_json(answer.body)
        except ValidationError as error:
            raise CorruptData(
                f"expected a dynlearn model at {self._metadata_url}, got another description; "
                "check the address and the server's version"
            ) from error
        self._require_version(metadata.parameters.version)
        return RemoteSpec(name=metadata.name, **dict(metadata.parameters))

    def _rows(
        self, observation: Any, action: Any, deadline: Deadline
    ) -> Exchange[dict[str, Array]]:
        return {
            "observation": (yield from self._observations("observation", observation, deadline)),
            "action": (yield from self._actions("action", action, 1, deadline)),
        }

    def _observations(self, name: str, values: Any, deadline: Deadline) -> Exchange[Array]:
        spec = yield from self._known_spec(deadline)
        return as_float(name, values, spec.observation_datatype)

    def _actions(self, name: str, values: Any, rank: int, deadline: Deadline) -> Exchange[Array]:
        spec = yield from self._known_spec(deadline)
        if isinstance(spec.action_space, DiscreteSpace):
            return as_choices(name, values, spec.action_space, rank)
        return as_float(name, values)

    def _compute(
        self,
        url: httpx.URL,
        inputs: Mapping[str, Array],
        names: Mapping[str, str],
        parameters: Mapping[str, Any],
        deadline: Deadline,
    ) -> Exchange[tuple[dict[str, Values], str]]:
        """Ask for tensors; return them by attribute, and the version that gave them."""
        id = token_hex(8)

        def encode(seconds: float) -> Message:
            # The protocol counts microseconds; the server drops what nobody waits for any more.
            limited = {**parameters, "timeout": max(1, int(seconds * 1e6))}
            return encode_request(inputs, list(names.values()), limited, id)

        answer = yield from self.server.ask(url, deadline, encode)
        try:
            response = decode_response(answer.body, answer.headers.get(HEADER_LENGTH))
            if response.id != id:
                raise InvalidInput(f"id: expected {id}, got {response.id}")
            arrays = {attribute: response.outputs[name] for attribute, name in names.items()}
        except (InvalidInput, KeyError) as error:
            raise CorruptData(
                f"expected the outputs asked for from {self.server.url}, got another answer "
                f"({error}); check the address and the server's version"
            ) from error
        self._require_version(response.model_version)
        if self._as_torch:
            tensor = _import_torch().tensor
            arrays = {name: tensor(values) for name, values in arrays.items()}
        return arrays, response.model_version

    def _require_version(self, version: str) -> None:
        if self._version not in (None, version):
            raise Unavailable(
                f"expected version {self._version} of model {self._model} throughout, got version "
                f"{version}; plan anew"
            )


def _import_torch() -> Any:
    # By name, for no tool to mistake it for a dependency of the client.
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "as_torch: expected torch to be installed, got none; pip install 'dynlearn[torch]'"
        ) from error


def _choose(known: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    if not names:
        raise InvalidInput(f"outputs: expected at least one name, got none; {nearest('', known)}")
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"outputs: expected names of outputs, got {name!r}; {nearest(name, known)}"
            )
    return {name: known[name] for name in names}
