"""RemoteDynamics: a served model that rollouts can step.

Shapes: E members, R rows, O observation, A action, S start states, P candidates, H horizon,
G context.
"""

import torch
from torch import Tensor

from dynlearn.client import DynamicsClient, RemotePrediction
from dynlearn.client.answers import Values
from dynlearn.distributions.gaussian import FullGaussian
from dynlearn.errors import InvalidInput, Unavailable
from dynlearn.rollout.returns import Estimator, Returns
from dynlearn.spaces import DiscreteSpace
from dynlearn.task import LEARNED


class RemoteDynamics:
    """A served model as dynamics for rollouts; the server's members, the caller's noise.

    With the same seed a rollout is the one that the model gives in process, to float rounding.
    """

    def __init__(self, client: DynamicsClient, environment: str | None = None):
        """Ask the server what it serves.

        Args:
            client: of the model, best a pinned one.
            environment: whose rewards `judge` means.

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
        self._environment = environment
        self._version = spec.version
        self._choices = spec.action_space if isinstance(spec.action_space, DiscreteSpace) else None
        self._is_full = spec.covariance == "full"
        self.members = spec.members
        self.device = torch.device("cpu")
        self.observation_dtype = (
            torch.float64 if spec.observation_datatype == "FP64" else torch.float32
        )

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
        action = self._in_the_space(action)
        if member is None or noise is None:
            return _as_tensor(self._predict(observation, action, member, "mean").mean)
        if self._is_full:
            prediction = self._predict(observation, action, member, "mean", "member_scale_trils")
            scale_tril = _as_tensor(prediction.member_scale_trils[0])
            return FullGaussian(_as_tensor(prediction.mean), scale_tril).sample(noise)
        prediction = self._predict(observation, action, member, "mean", "variance")
        std = _as_tensor(prediction.variance).sqrt_()
        return torch.addcmul(_as_tensor(prediction.mean), std, noise)

    def judge(
        self,
        estimator: Estimator,
        observation: Tensor,
        actions: Tensor,
        context: Tensor,
        seed: int,
    ) -> Returns:
        """Return what action sequences are worth, in one request.

        Args:
            estimator: with the name of a reward that the server knows.
            observation: start states [S, O].
            actions: [S, P, H, A], one-hot where actions are discrete.
            context: of each start state, [S, G].
            seed: of members and noise.

        Raises:
            InvalidInput: the server does not know the reward, or the context does not suit it.
            Unavailable: there is no server, or it serves another version by now.
        """
        assert isinstance(estimator.reward, str)
        answer = self._client.rollout(
            observation,
            self._in_the_space(actions),
            estimator.particles,
            estimator.propagation,
            seed,
            estimator.reward,
            None if estimator.reward == LEARNED else self._environment,
            context if context.shape[1] else None,
            estimator.discount,
            estimator.risk_aversion,
            ("returns", "return_std"),
        )
        self._require_version(answer.model_version)
        score, std = _as_tensor(answer.returns), _as_tensor(answer.return_std)
        # What is not finite can only travel as the lowest number.
        score = score.masked_fill_(score == torch.finfo(torch.float32).min, -torch.inf)
        return Returns(score + estimator.risk_aversion * std, std, score)

    def _in_the_space(self, actions: Tensor) -> Tensor:
        return actions if self._choices is None else actions.argmax(-1) + self._choices.start

    def _predict(
        self, observation: Tensor, action: Tensor, member: Tensor | None, *outputs: str
    ) -> RemotePrediction:
        prediction = self._client.predict(observation, action, outputs, member)
        self._require_version(prediction.model_version)
        return prediction

    def _require_version(self, version: str) -> None:
        if version != self._version:
            raise Unavailable(
                f"expected version {self._version} of the served model throughout a plan, got "
                f"version {version}; plan anew"
            )


def _as_tensor(values: Values) -> Tensor:
    """Return what a client has fetched, which is a tensor already if it is ``as_torch``."""
    return values if isinstance(values, Tensor) else torch.tensor(values)
