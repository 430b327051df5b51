"""LoadedModel: a model version in memory, by its protocol names.

Shapes: E members, N rows, O observation, A action, D predicted columns.
"""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynlearn.config.choices import PredictionPrecision, Propagation
from dynlearn.distributions.mixture import Prediction
from dynlearn.errors import InvalidInput, nearest
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.reward import LearnedReward
from dynlearn.protocol.metadata import ModelMetadata, ModelParameters, TensorMetadata
from dynlearn.protocol.names import OUTPUTS, REWARD_MEAN, SAMPLE, SAMPLE_MEMBER
from dynlearn.protocol.tensors import Array
from dynlearn.registry import ModelVersion
from dynlearn.seeds import seeded
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server.calls.checks import Inputs

_ATTRIBUTES = {name: attribute for attribute, name in OUTPUTS.items()}
# At most: float32, or int64.
_ITEM_BYTES = 8
_WARM_UP_ROWS = 64
_MOST_DEVIATIONS = 1e6
_LARGEST = 1e18
# What is computed at once; with five members of width 200, 30 MiB for each layer.
_CHUNK = 8_192


@dataclass(frozen=True)
class Draw:
    """How next observations are sampled.

    Attributes:
        seed: of members and noise.
        propagation: ``ts1`` and ``tsinf`` draw a member for each row and a sample of its
            distribution, ``moment_matching`` a sample of the Gaussian with the mixture's mean and
            covariance; ``expectation`` gives the mean.
    """

    seed: int
    propagation: Propagation


@dataclass(frozen=True)
class _Draws:
    draw: Draw
    chosen: Tensor | None
    noise: Tensor
    value: Array

    @property
    def member(self) -> Array:
        if self.chosen is None:
            raise InvalidInput(
                f"outputs: expected no {SAMPLE_MEMBER} with propagation "
                f"{self.draw.propagation}, which draws no members"
            )
        member: Array = self.chosen.numpy()
        return member


class LoadedModel:
    """A model version by its protocol names.

    Attributes:
        name: the model's name in the registry.
        version: its concrete version.
        model: what runs.
        reward: what it has learned of the reward, where it has.
        size: of its weights, in bytes.
        last_used: a time of `time.monotonic`, kept by whoever looks after versions.
    """

    def __init__(
        self,
        name: str,
        version: str,
        model: DynamicsModel,
        reward: LearnedReward | None = None,
    ):
        self.name = name
        self.version = version
        self.model = model
        self.reward = reward
        self.last_used = time.monotonic()
        self.size = model.regressor.nbytes
        self._shapes = _output_shapes(model)
        if reward is not None:
            self.size += reward.nbytes
            self._shapes[REWARD_MEAN] = [-1]

    @classmethod
    def load(
        cls, version: ModelVersion, device: torch.device, precision: PredictionPrecision
    ) -> "LoadedModel":
        """Read a published model.

        Raises:
            CorruptData: a file is gone, truncated or altered.
        """
        version.verify()
        model = DynamicsModel.load(version.folder, device, precision)
        reward = LearnedReward.load(version.folder, model)
        return cls(version.name, version.version, model, reward)

    @property
    def context_size(self) -> int:
        """G, the columns of what the learned reward needs beside a transition."""
        return 0 if self.reward is None else self.reward.context_size

    def require_outputs(self, outputs: Sequence[str]) -> None:
        """Check the names of outputs.

        Raises:
            InvalidInput: the model has no such output.
        """
        for name in outputs:
            if name == REWARD_MEAN and self.reward is None:
                raise InvalidInput(
                    f"outputs: expected a model that has learned a reward for {name}, got "
                    f"{self.name} {self.version}; train one with --learn-reward"
                )
            if name not in self._shapes:
                raise InvalidInput(
                    f"outputs: expected outputs of model {self.name}, got {name!r}; "
                    f"{nearest(name, self._shapes)}"
                )

    def answer_bytes(self, outputs: Sequence[str], inputs: Inputs) -> int:
        """Return how many bytes the outputs for so many rows are."""
        return sum(_ITEM_BYTES * math.prod(self._shape(name, inputs)) for name in outputs)

    @torch.inference_mode()
    def compute(self, inputs: Inputs, outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs that are asked for, and compute no others.

        Raises:
            InvalidInput: the reward is asked for, and the goal is not there.
        """
        prediction = self._predict(inputs)
        return {
            name: _to_numpy(
                self._reward_mean(inputs, prediction)
                if name == REWARD_MEAN
                else getattr(prediction, _ATTRIBUTES[name])
            )
            for name in outputs
        }

    def compute_in_pieces(
        self, inputs: Inputs, outputs: Sequence[str], draw: Draw | None = None
    ) -> Generator[None, None, dict[str, Array]]:
        """Compute many rows a few at a time, and return the outputs; samples too if asked for."""
        plain = [name for name in outputs if name not in (SAMPLE, SAMPLE_MEMBER)]
        whole = {name: np.empty(self._shape(name, inputs), np.float32) for name in plain}
        draws = self._prepare(inputs, draw) if draw else None
        for start in range(0, inputs.rows, _CHUNK):
            if start:
                yield
            rows = slice(start, start + _CHUNK)
            part = inputs.rows_of(rows)
            for name, values in self.compute(part, plain).items() if plain else ():
                self.rows_of(name, whole[name], rows)[:] = values
            if draws:
                draws.value[rows] = self._draw(part, draws, rows)
        if draws and SAMPLE in outputs:
            whole[SAMPLE] = draws.value
        if draws and SAMPLE_MEMBER in outputs:
            whole[SAMPLE_MEMBER] = draws.member
        return {name: whole[name] for name in outputs}

    def require_near(self, observation: Array, context: Array | None = None) -> None:
        """Check that observations and contexts are anywhere near what the model was trained on.

        Args:
            observation: [N, O].
            context: [N, G].

        Raises:
            InvalidInput: one is so far away that no answer can be expected of the model.
        """
        columns = list(self.model.spec.observation_columns)
        scaler = self.model.regressor.input_scaler
        mean, std = (values[: len(columns)].cpu().numpy() for values in (scaler.mean, scaler.std))
        with np.errstate(over="ignore"):
            farthest = np.abs((observation[:, columns] - mean) / std).max()
        away = {"observation": farthest}
        if self.reward is not None and context is not None:
            away["context"] = self.reward.deviations(context)
        for name, deviations in away.items():
            if deviations > _MOST_DEVIATIONS:
                raise InvalidInput(
                    f"{name}: expected values like those that model {self.name} was trained on, "
                    f"got some {deviations:.3g} standard deviations away, where it has no finite "
                    "answer"
                )
        largest = np.abs(observation).max()
        if largest > _LARGEST:
            raise InvalidInput(
                f"observation: expected values up to {_LARGEST:g}, whose squares are finite, got "
                f"{largest:.3g}"
            )

    def rows_of(self, output: str, values: Array, rows: slice) -> Array:
        """Return some rows of an output."""
        part: Array = values[rows] if self._shapes[output][0] == -1 else values[:, rows]
        return part

    def join_rows(self, output: str, parts: Sequence[Array]) -> Array:
        """Return the rows of all parts of an output, one part after the other."""
        return np.concatenate(parts, 0 if self._shapes[output][0] == -1 else 1)

    def warm_up(self) -> None:
        """Run once, so that the next answer comes at full speed."""
        spec = self.model.spec
        action: Array = np.zeros((_WARM_UP_ROWS, spec.action_size), np.float32)
        if isinstance(spec.action_space, DiscreteSpace):
            action = np.full(_WARM_UP_ROWS, spec.action_space.start)
        observation = np.zeros((_WARM_UP_ROWS, spec.observation_size), np.float32)
        context = np.zeros((_WARM_UP_ROWS, self.context_size), np.float32)
        outputs = [name for name in self._shapes if name not in (SAMPLE, SAMPLE_MEMBER)]
        self.compute(Inputs(observation, action, context=context), outputs)

    def metadata(
        self, versions: Sequence[str], rewards: Mapping[str, tuple[str, ...]]
    ) -> ModelMetadata:
        """Return what the model takes and gives, and what a planner must know of it.

        Args:
            versions: that can be asked for.
            rewards: that are known for such observations, by environment.
        """
        spec = self.model.spec
        action = (
            TensorMetadata(name="action", datatype="INT64", shape=[-1])
            if isinstance(spec.action_space, DiscreteSpace)
            else TensorMetadata(name="action", datatype="FP32", shape=[-1, spec.action_size])
        )
        return ModelMetadata(
            name=self.name,
            versions=list(versions),
            platform="dynlearn",
            inputs=[
                TensorMetadata(
                    name="observation", datatype="FP32", shape=[-1, spec.observation_size]
                ),
                action,
            ],
            outputs=[
                TensorMetadata(
                    name=name, datatype="INT64" if name == SAMPLE_MEMBER else "FP32", shape=shape
                )
                for name, shape in self._shapes.items()
            ],
            parameters=ModelParameters(
                version=self.version,
                observation_size=spec.observation_size,
                action_space=spec.action_space,
                observation_columns=spec.observation_columns,
                target_columns=spec.target_columns,
                members=spec.members,
                covariance="full" if spec.head == "scale_tril" else "diagonal",
                full_state=spec.full_state,
                learned_reward=self.reward is not None,
                context_size=self.context_size,
                precision=self.model.precision,
                rewards=rewards,
            ),
        )

    def _predict(self, inputs: Inputs) -> Prediction:
        prediction = self.model.predict(inputs.observation, inputs.action, inputs.member)
        if inputs.members is None:
            return prediction
        return Prediction(prediction.members[list(inputs.members)])

    def _reward_mean(self, inputs: Inputs, prediction: Prediction) -> Tensor:
        assert self.reward is not None
        observation, action = self.model.check_inputs(inputs.observation, inputs.action)
        given = inputs.context
        context = self.model.as_tensor(np.empty((inputs.rows, 0)) if given is None else given)
        following = prediction.member_means
        same = (part.expand(len(following), -1, -1) for part in (observation, action, context))
        before, taken, goal = same
        return self.reward(before, taken, following, goal).mean(0)

    def _prepare(self, inputs: Inputs, draw: Draw) -> _Draws:
        """Draw members and noise for all rows: those of `DynamicsModel.sample`."""
        generator = seeded(draw.seed)
        targets = len(self.model.spec.target_columns)
        chosen = None
        if draw.propagation in ("ts1", "tsinf"):
            if inputs.member is not None:
                chosen = torch.from_numpy(inputs.member)
            else:
                among = inputs.members or range(self.model.members)
                place = torch.randint(len(among), (inputs.rows,), generator=generator)
                chosen = torch.tensor(list(among))[place]
        noise = torch.randn(inputs.rows, targets, generator=generator)
        return _Draws(draw, chosen, noise, np.empty((inputs.rows, targets), np.float32))

    @torch.inference_mode()
    def _draw(self, part: Inputs, draws: _Draws, rows: slice) -> Array:
        model = self.model
        if draws.chosen is not None:
            observation, action = model.check_inputs(part.observation, part.action)
            chosen, noise = (own[rows].to(model.device) for own in (draws.chosen, draws.noise))
            return _to_numpy(model.step(observation, action, chosen, noise))
        prediction = self._predict(part)
        if draws.draw.propagation == "expectation":
            return _to_numpy(prediction.mean)
        factor = torch.linalg.cholesky(prediction.covariance.double())
        noise = draws.noise[rows].to(model.device).double().unsqueeze(-1)
        return _to_numpy((prediction.mean + (factor @ noise).squeeze(-1)).float())

    def _shape(self, output: str, inputs: Inputs) -> tuple[int, ...]:
        shape = self._shapes[output]
        if shape[0] == -1:
            return (inputs.rows, *shape[1:])
        members = shape[0]
        if inputs.member is not None:
            members = 1
        elif inputs.members is not None:
            members = len(inputs.members)
        return (members, inputs.rows, *shape[2:])


def _output_shapes(model: DynamicsModel) -> dict[str, list[int]]:
    targets = len(model.spec.target_columns)
    matrix, members = [-1, targets, targets], [model.members, -1, targets]
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
    named = {name: shapes[attribute] for attribute, name in OUTPUTS.items()}
    return named | {SAMPLE: [-1, targets], SAMPLE_MEMBER: [-1]}


def _to_numpy(values: Tensor) -> Array:
    array: Array = values.cpu().numpy()
    return array
