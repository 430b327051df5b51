"""RemoteDynamics: a served model that rollouts can step.

Shapes: E members, R rows, O observation, A action.
"""

import torch
from torch import Tensor

from dynlearn.client import DynamicsClient, RemotePrediction
from dynlearn.errors import InvalidInput, Unavailable
from dynlearn.gaussian import FullGaussian
from dynlearn.spaces import DiscreteSpace


class RemoteDynamics:
    """The `dynlearn.rollout.Dynamics` of a served model; the server's members, the caller's noise.

    With the same seed a rollout is the one that the model gives in process, to float rounding.
    """

    def __init__(self, client: DynamicsClient):
        """Ask the server what it serves.

        Raises:
            InvalidInput: the model does not predict the full state.
        """
        spec = client.spec
        if not spec.full_state:
            raise InvalidInput(
                f"expected a served model of all {spec.observation_size} observation columns, got "
                f"one of columns {list(spec.target_columns)}; train without target_columns"
            )
        self._client = client
        self._version = spec.version
        self._choices = spec.action_space if isinstance(spec.action_space, DiscreteSpace) else None
        self._is_full = spec.covariance == "full"
        self.members = spec.members
        self.device = torch.device("cpu")

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Return the next observations [R, O], in one request.

        Args:
            observation: [R, O].
            action: [R, A], one-hot where actions are discrete.
            member: which member answers each row [R]; None asks for the mixture's mean.
            noise: standard normal draws [R, O] for the member's Gaussian; None asks for its mean.

        Raises:
            Unavailable: there is no server, or it serves another version by now.
        """
        if self._choices is not None:
            action = action.argmax(1) + self._choices.start
        if member is None or noise is None:
            return torch.tensor(self._predict(observation, action, member, "mean").mean)
        if self._is_full:
            prediction = self._predict(observation, action, member, "mean", "member_scale_trils")
            scale_tril = torch.tensor(prediction.member_scale_trils[0])
            return FullGaussian(torch.tensor(prediction.mean), scale_tril).sample(noise)
        prediction = self._predict(observation, action, member, "mean", "variance")
        std = torch.tensor(prediction.variance).sqrt_()
        return torch.addcmul(torch.tensor(prediction.mean), std, noise)

    def _predict(
        self, observation: Tensor, action: Tensor, member: Tensor | None, *outputs: str
    ) -> RemotePrediction:
        prediction = self._client.predict(observation, action, outputs, member)
        if prediction.model_version != self._version:
            raise Unavailable(
                f"expected version {self._version} of the served model throughout a plan, got "
                f"version {prediction.model_version}; plan anew"
            )
        return prediction
