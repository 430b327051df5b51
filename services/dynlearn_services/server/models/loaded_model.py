"""LoadedModel: a model version in memory, by its protocol names."""

import time
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from dynlearn.config.choices import PredictionPrecision
from dynlearn.distributions.mixture import Prediction
from dynlearn.errors import InvalidInput, nearest
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.published import load_published
from dynlearn.models.reward import LearnedReward
from dynlearn.protocol.names import REWARD_MEAN, SAMPLE, SAMPLE_MEMBER
from dynlearn.protocol.tensors import Array
from dynlearn.registry import ModelVersion
from dynlearn.spaces import DiscreteSpace
from dynlearn.training.provenance import read_environment
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.outputs import ATTRIBUTES, SAMPLES, Outputs
from dynlearn_services.server.models.sampling import Draw, Samples, predict

_WARM_UP_ROWS = 64
# What is computed at once; with five members of width 200, 30 MiB for each layer.
_CHUNK = 8_192


class LoadedModel:
    """A model version by its protocol names.

    Attributes:
        name: the model's name in the registry.
        version: its concrete version.
        model: what runs.
        reward: what it has learned of the reward, where it has.
        environment: whose data it was trained on, where that is known.
        env_kwargs: what that environment was made with.
        seed_range: the lowest and the highest seed that it takes; None where it takes any.
        outputs: what it gives.
        size: of its weights, in bytes.
        last_used: a time of `time.monotonic`, kept by whoever looks after versions.
    """

    def __init__(
        self,
        name: str,
        version: str,
        model: DynamicsModel,
        reward: LearnedReward | None = None,
        environment: str | None = None,
        env_kwargs: Mapping[str, JsonValue] | None = None,
        seed_range: tuple[int, int] | None = None,
    ):
        self.name = name
        self.version = version
        self.model = model
        self.reward = reward
        self.environment = environment
        self.env_kwargs = env_kwargs or {}
        self.seed_range = seed_range
        self.last_used = time.monotonic()
        self.size = model.regressor.nbytes
        self.outputs = Outputs(model, with_reward=reward is not None)
        if reward is not None:
            self.size += reward.nbytes

    @classmethod
    def load(
        cls, version: ModelVersion, device: torch.device, precision: PredictionPrecision
    ) -> "LoadedModel":
        """Read a published model.

        Raises:
            CorruptData: a file is gone, truncated or altered.
        """
        published = load_published(version.folder, device, precision)
        data = read_environment(version.folder)
        return cls(
            version.name,
            version.version,
            *published,
            data.environment,
            data.kwargs,
            data.seed_range,
        )

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
            if name not in self.outputs:
                raise InvalidInput(
                    f"outputs: expected outputs of model {self.name}, got {name!r}; "
                    f"{nearest(name, self.outputs)}"
                )

    @torch.no_grad()
    def compute(self, inputs: Inputs, outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs that are asked for, and compute no others.

        Raises:
            InvalidInput: the reward is asked for, and the goal is not there.
        """
        prediction = predict(self.model, inputs)
        return {
            name: (
                self._reward_mean(inputs, prediction)
                if name == REWARD_MEAN
                else getattr(prediction, ATTRIBUTES[name])
            )
            .cpu()
            .numpy()
            .astype(self.outputs.dtype(name), copy=False)
            for name in outputs
        }

    def compute_in_pieces(
        self, inputs: Inputs, outputs: Sequence[str], draw: Draw | None = None
    ) -> Generator[None, None, dict[str, Array]]:
        """Compute many rows a few at a time, and return the outputs; samples too if asked for."""
        plain = [name for name in outputs if name not in SAMPLES]
        whole = {
            name: np.empty(self.outputs.shape(name, inputs), self.outputs.dtype(name))
            for name in plain
        }
        samples = Samples.prepare(self.model, inputs, draw) if draw else None
        for start in range(0, inputs.rows, _CHUNK):
            if start:
                yield
            rows = slice(start, start + _CHUNK)
            part = inputs.rows_of(rows)
            for name, values in self.compute(part, plain).items() if plain else ():
                self.outputs.rows_of(name, whole[name], rows)[:] = values
            if samples:
                samples.compute(self.model, part, rows)
        if samples and SAMPLE in outputs:
            whole[SAMPLE] = samples.value
        if samples and SAMPLE_MEMBER in outputs:
            whole[SAMPLE_MEMBER] = samples.member
        return {name: whole[name] for name in outputs}

    def warm_up(self) -> None:
        """Run once, so that the next answer comes at full speed."""
        spec = self.model.spec
        action: Array = np.zeros((_WARM_UP_ROWS, spec.action_size), np.float32)
        if isinstance(spec.action_space, DiscreteSpace):
            action = np.full(_WARM_UP_ROWS, spec.action_space.start)
        observation = np.zeros((_WARM_UP_ROWS, spec.observation_size), np.float32)
        context = np.zeros((_WARM_UP_ROWS, self.context_size), np.float32)
        outputs = [name for name in self.outputs if name not in SAMPLES]
        self.compute(Inputs(observation, action, context=context), outputs)

    def _reward_mean(self, inputs: Inputs, prediction: Prediction) -> Tensor:
        assert self.reward is not None
        observation, action = self.model.check_inputs(inputs.observation, inputs.action)
        given = inputs.context
        context = self.model.as_tensor(np.empty((inputs.rows, 0)) if given is None else given)
        following = prediction.member_means
        same = (part.expand(len(following), -1, -1) for part in (observation, action, context))
        before, taken, goal = same
        return self.reward(before, taken, following, goal).mean(0)
