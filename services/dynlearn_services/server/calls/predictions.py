"""Predictions over HTTP: from the bytes of a request to the bytes of its answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import orjson

from dynlearn.errors import InvalidInput, NumericalFailure, TooLarge
from dynlearn.protocol.messages import (
    InferRequest,
    InferResponse,
    Message,
    decode_request,
    encode_response,
)
from dynlearn.protocol.names import OUTPUTS, SAMPLE, SAMPLE_MEMBER
from dynlearn.protocol.tensors import Array
from dynlearn_services.server.calls.checks import check_inputs
from dynlearn_services.server.calls.parameters import PredictParameters
from dynlearn_services.server.models.loaded_model import Draw, LoadedModel
from dynlearn_services.server.service import Service

DEFAULT_OUTPUTS = (OUTPUTS["mean"], OUTPUTS["variance"], OUTPUTS["covariance"])

# Below this, another thread costs more than the work.
_INLINE_BYTES = 1_048_576

_dumps = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


async def predict(
    service: Service, model: LoadedModel, body: bytes, header_length: str | None
) -> Message:
    """Answer a prediction request.

    Raises:
        InvalidInput: a part of it is wrong; the message names the field.
        TooLarge: there are more rows, or there would be more bytes, than allowed.
        Unavailable: too much is waiting already.
        DeadlineExceeded: the caller's timeout passed before its turn.
        NumericalFailure: the model gave NaN or infinity.
    """
    config, inference = service.config, service.inference
    request = await decode(body, header_length)
    parameters = PredictParameters.read(request.parameters)
    deadline = parameters.deadline
    binary = request.outputs or dict.fromkeys(DEFAULT_OUTPUTS, request.binary)
    outputs = tuple(binary)
    model.require_outputs(outputs)
    require_rows(request.inputs, config.max_rows)
    inputs = check_inputs(
        model.model.spec,
        request.inputs,
        parameters.members,
        config.actions_outside,
        model.context_size,
    )
    require_answer(model.answer_bytes(outputs, inputs), config.max_answer_bytes)
    draw = _draw(outputs, parameters)
    if draw is None and inputs.rows <= config.batch_rows:
        computed = await inference.predict(model, inputs, outputs, deadline)
    else:
        pieces = model.compute_in_pieces(inputs, outputs, draw)
        computed = await inference.run(model, pieces, deadline)
    try:
        return await encode(model, computed, binary, request.id)
    except NumericalFailure:
        # It may be the caller's fault.
        model.require_near(inputs.observation, inputs.context)
        raise


async def decode(body: bytes, header_length: str | None) -> InferRequest:
    """Read a request, away from the event loop if it is long."""
    if len(body) <= _INLINE_BYTES:
        return decode_request(body, header_length)
    return await asyncio.to_thread(decode_request, body, header_length)


async def encode(
    model: LoadedModel, outputs: dict[str, Array], binary: Mapping[str, bool], id_: str | None
) -> Message:
    """Write an answer, away from the event loop if it is long."""
    response = InferResponse(model.name, model.version, outputs, id_)
    write: Callable[[], Message] = partial(
        encode_response, response, {name for name in binary if binary[name]}, _dumps
    )
    if sum(values.nbytes for values in outputs.values()) <= _INLINE_BYTES:
        return write()
    return await asyncio.to_thread(write)


def require_rows(inputs: Mapping[str, Array], most: int) -> None:
    """Check how many rows there are.

    Raises:
        TooLarge: an input has more.
    """
    for name, values in inputs.items():
        if len(values) > most:
            raise TooLarge(f"{name}: expected at most {most} rows, got {len(values)}")


def require_answer(size: int, most: int) -> None:
    """Check how many bytes an answer would be.

    Raises:
        TooLarge: they are more.
    """
    if size > most:
        raise TooLarge(
            f"outputs: expected an answer of at most {most} bytes, got a request for {size}; "
            "ask for fewer rows or outputs at a time"
        )


def _draw(outputs: Sequence[str], parameters: PredictParameters) -> Draw | None:
    if SAMPLE not in outputs and SAMPLE_MEMBER not in outputs:
        return None
    if parameters.seed is None:
        raise InvalidInput("parameters.seed: expected a seed to draw samples with, got none")
    if SAMPLE_MEMBER in outputs and parameters.propagation not in ("ts1", "tsinf"):
        raise InvalidInput(
            f"outputs: expected no {SAMPLE_MEMBER} with propagation {parameters.propagation}, "
            "which draws no members"
        )
    return Draw(parameters.seed, parameters.propagation)
