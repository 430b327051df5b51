"""DynamicsClient: predictions of a served model, as numpy arrays. Needs neither torch nor more.

Shapes: E members, B batch, O observation, A action, D predicted columns.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
from pydantic import ValidationError

from dynlearn.errors import (
    CorruptData,
    DynlearnError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unavailable,
    nearest,
)
from dynlearn.protocol import OUTPUTS, ModelMetadata, ModelParameters
from dynlearn.spaces import DiscreteSpace
from dynlearn.wire import HEADER_LENGTH, Array, decode_response, encode_request

_ERRORS = {
    kind.http_status: kind
    for kind in (DynlearnError, InvalidInput, NotFound, TooLarge, Unavailable)
}


class RemoteSpec(ModelParameters):
    """What a served model takes and predicts, and the version that was served when asked."""

    name: str
    version: str


@dataclass(frozen=True)
class RemotePrediction:
    """The parts of a prediction that were asked for, and those that follow from them.

    Attributes:
        arrays: what came, by attribute name; read-only.
        model_version: the version that answered.
    """

    arrays: Mapping[str, Array]
    model_version: str

    @property
    def mean(self) -> Array:
        """The mixture's mean, [B, D]."""
        return self._fetched("mean")

    @cached_property
    def variance(self) -> Array:
        """The diagonal of the covariance, [B, D]."""
        if "variance" in self.arrays or not self._has_covariance:
            return self._fetched("variance")
        return np.diagonal(self.covariance, axis1=1, axis2=2)

    @cached_property
    def std(self) -> Array:
        """The square root of the variance, [B, D]."""
        std: Array = np.sqrt(self.variance)
        return std

    @cached_property
    def covariance(self) -> Array:
        """The mixture's covariance, aleatoric plus epistemic, [B, D, D]."""
        if "covariance" in self.arrays or not self._has_covariance:
            return self._fetched("covariance")
        covariance: Array = self.aleatoric + self.epistemic
        return covariance

    @property
    def aleatoric(self) -> Array:
        """The mean of the members' covariances, [B, D, D]."""
        return self._fetched("aleatoric")

    @property
    def epistemic(self) -> Array:
        """The covariance of the members' means, [B, D, D]."""
        return self._fetched("epistemic")

    @property
    def member_means(self) -> Array:
        """Each member's mean, [E, B, D]."""
        return self._fetched("member_means")

    @property
    def member_variances(self) -> Array:
        """Each member's variance, [E, B, D]."""
        return self._fetched("member_variances")

    @property
    def member_scale_trils(self) -> Array:
        """The lower Cholesky factor of each member's covariance, [E, B, D, D]."""
        return self._fetched("member_scale_trils")

    @property
    def _has_covariance(self) -> bool:
        return "covariance" in self.arrays or {"aleatoric", "epistemic"} <= self.arrays.keys()

    def _fetched(self, name: str) -> Array:
        if name not in self.arrays:
            raise InvalidInput(
                f"expected one of the outputs {', '.join(self.arrays)} that were asked for, got "
                f"{name}; ask with predict(..., outputs=({name!r}, ...))"
            )
        return self.arrays[name]


class DynamicsClient:
    """A served model over HTTP, on connections that are kept."""

    def __init__(self, url: str, model: str, version: str | None = None, timeout: float = 30.0):
        """Name a served model; nothing is sent yet.

        Args:
            url: the server's address, such as ``http://127.0.0.1:8000``.
            model: the model's name.
            version: the version to insist on; None takes the one that the server serves.
            timeout: seconds to wait for the server at each turn.

        Raises:
            InvalidInput: ``url`` is no address.
        """
        self.url = url.rstrip("/")
        try:
            urlsplit(self.url)
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError):
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise InvalidInput(f"expected an address like http://127.0.0.1:8000, got {url!r}")
        path = f"{self.url}/v2/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        self._metadata_url = httpx.URL(path)
        self._infer_url = httpx.URL(f"{path}/infer")
        # A planner talks to its server directly, whatever proxy the environment names.
        self._http = httpx.Client(timeout=timeout, trust_env=False)

    @cached_property
    def spec(self) -> RemoteSpec:
        """What the model takes and predicts, asked of the server once.

        Raises:
            NotFound: the server has no such model or version.
            Unavailable: there is no server.
        """
        answer = self._send("GET", self._metadata_url)
        try:
            metadata = ModelMetadata.model_validate_json(answer.content)
        except ValidationError as error:
            raise CorruptData(
                f"expected a dynlearn model at {self._metadata_url}, got another description; "
                "check the address and the server's version"
            ) from error
        return RemoteSpec(
            name=metadata.name, version=metadata.versions[-1], **dict(metadata.parameters)
        )

    def predict(
        self,
        observation: Any,
        action: Any,
        outputs: Sequence[str] = ("mean", "aleatoric", "epistemic"),
        member: Any = None,
    ) -> RemotePrediction:
        """Predict the next observation's distribution.

        Args:
            observation: [B, O].
            action: [B, A], or integers [B] where actions are discrete.
            outputs: what to fetch: mean, variance, covariance, aleatoric, epistemic, member_means,
                member_variances or member_scale_trils. With the default, ``covariance``,
                ``variance`` and ``std`` follow from what is fetched; matrices are large, so ask
                for less where time counts.
            member: which member alone answers each row, integers [B]; all answer where it is None.

        Raises:
            InvalidInput: a shape or a name is wrong, or a value is not finite.
            TooLarge: there are more rows than the server takes.
            NotFound: the server has no such model or version.
            Unavailable: there is no server, or it does not answer in time.
        """
        for name in outputs:
            if name not in OUTPUTS:
                raise InvalidInput(
                    f"outputs: expected names of outputs, got {name!r}; {nearest(name, OUTPUTS)}"
                )
        inputs = {
            "observation": _as_float32("observation", observation),
            "action": self._as_action(action),
        }
        if member is not None:
            inputs["member"] = _as_integers("member", member)
        request = encode_request(inputs, [OUTPUTS[name] for name in outputs])
        answer = self._send("POST", self._infer_url, content=request.body, headers=request.headers)
        try:
            response = decode_response(answer.content, answer.headers.get(HEADER_LENGTH))
            arrays = {name: response.outputs[OUTPUTS[name]] for name in outputs}
        except (InvalidInput, KeyError) as error:
            raise CorruptData(
                f"expected the outputs asked for from {self.url}, got another answer ({error}); "
                "check the address and the server's version"
            ) from error
        return RemotePrediction(arrays, response.model_version)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _as_action(self, action: Any) -> Array:
        if not isinstance(self.spec.action_space, DiscreteSpace):
            return _as_float32("action", action)
        return _as_integers("action", action)

    def _send(self, method: str, url: httpx.URL, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, url, **content)
        except httpx.TimeoutException as error:
            raise Unavailable(
                f"expected an answer from {self.url} within {self._http.timeout.read} s, got none; "
                "ask for fewer rows, or with a longer timeout"
            ) from error
        except httpx.TransportError as error:
            raise Unavailable(
                f"expected a server at {self.url}, got none ({error}); "
                "start one with `dynlearn serve`"
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise _read_error(answer)
        return answer


def _as_float32(name: str, values: Any) -> Array:
    try:
        # What overflows becomes infinite, and the server refuses it by name.
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: expected rows of numbers ({error})") from error


def _as_integers(name: str, values: Any) -> Array:
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise InvalidInput(f"{name}: expected integers, got an array of {values.dtype}")
    integers: Array = values.astype(np.int64)
    return integers


def _read_error(answer: httpx.Response) -> DynlearnError:
    status = answer.status_code
    kind = _ERRORS.get(status, InvalidInput if status < 500 else Unavailable)
    try:
        return kind(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return kind(
            f"expected an answer from {answer.url}, got status {status}: "
            f"{reprlib.repr(answer.text)}"
        )
