"""A dynamics model in MLServer, the reference server of the Open Inference Protocol in Python.

Written as its documentation shows for a runtime of one's own: decode to numpy, call, encode.
"""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from dynlearn.models.dynamics import DynamicsModel
from dynlearn.protocol.names import OUTPUTS


class Dynamics(MLModel):  # type: ignore[misc]
    """A model folder, under the name that MLServer's settings give it."""

    async def load(self) -> bool:
        """Read the model from the folder that the settings name."""
        self._model = DynamicsModel.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with mean and variance."""
        inputs = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        prediction = self._model.predict(inputs["observation"], inputs["action"])
        outputs = {name: getattr(prediction, name).numpy() for name in ("mean", "variance")}
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(OUTPUTS[n], v) for n, v in outputs.items()],
        )
