"""Predictions over HTTP: from the bytes of a request to the bytes of its answer."""

from collections.abc import Sequence
from functools import partial

from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.protocol.messages import Message
from dynlearn.protocol.names import OUTPUTS, SAMPLE, SAMPLE_MEMBER
from dynlearn_services.server.calls.checks import check_inputs
from dynlearn_services.server.calls.faults import require_near
from dynlearn_services.server.calls.messages import (
    aside,
    decode,
    encode,
    require_answer,
    require_rows,
)
from dynlearn_services.server.calls.parameters import PredictParameters
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.sampling import Draw
from dynlearn_services.server.service import Service

_DEFAULT_OUTPUTS = (OUTPUTS["mean"], OUTPUTS["variance"], OUTPUTS["covariance"])


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
    request = await decode(body, header_length, config.max_json_bytes, service.reader)
    parameters = PredictParameters.read(request.parameters)
    deadline = parameters.deadline
    binary = request.outputs or dict.fromkeys(_DEFAULT_OUTPUTS, request.binary)
    outputs = tuple(binary)
    model.require_outputs(outputs)
    require_rows(request.inputs, config.max_rows)
    check = partial(
        check_inputs,
        model.model.spec,
        request.inputs,
        parameters.members,
        config.actions_outside,
        model.context_size,
    )
    inputs = await aside(len(body), check)
    require_answer(model.outputs.count_bytes(outputs, inputs), config.max_answer_bytes)
    draw = _draw(outputs, parameters)
    if draw is None and inputs.rows <= config.batch_rows:
        computed = await inference.predict(model, inputs, outputs, deadline)
    else:
        computed = await inference.run(
            model, lambda _: model.compute_in_pieces(inputs, outputs, draw), deadline
        )
    try:
        return await encode(model, computed, binary, request.id)
    except NumericalFailure:
        # It may be the caller's fault.
        require_near(model, inputs.observation, inputs.context)
        raise


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
