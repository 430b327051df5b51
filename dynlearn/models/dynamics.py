"""DynamicsModel: from an observation and an action to the next observation's distribution.

Shapes: E members, B batch, O observation, A action, D predicted columns, S start states,
P candidates, H horizon, N particles or successors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlearn.config.choices import PredictionPrecision, Propagation
from dynlearn.distributions.mixture import Distribution, Prediction
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.models.scaling import Scaler
from dynlearn.models.spec import ModelSpec
from dynlearn.rollout.draws import draw_members
from dynlearn.rollout.trajectory import Trajectory, rollout
from dynlearn.spaces import DiscreteSpace
from dynlearn.storage.files import read_json, write_json
from dynlearn.storage.tensors import load_tensors, save_tensors

SPEC_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class DynamicsModel(nn.Module):
    """An ensemble of networks with its spec and its scalers.

    `predict` gives the distribution of the predicted columns of the next observation, in original
    units; `sample` draws from it; `rollout` imagines trajectories.
    """

    delta: Tensor

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.precision: PredictionPrecision = "float32"
        inputs = len(spec.observation_columns) + spec.action_size
        targets = len(spec.target_columns)
        self.input_scaler = Scaler(inputs)
        self.target_scaler = Scaler(targets)
        self.network = EnsembleNetwork(
            spec.members,
            inputs,
            spec.hidden,
            Head(spec.head, targets, spec.prior_components),
            spec.activation,
            spec.separate_networks,
        )
        is_delta = [column not in spec.absolute_columns for column in spec.target_columns]
        self.register_buffer("delta", torch.tensor(is_delta, dtype=torch.float32), persistent=False)

    @property
    def members(self) -> int:
        """E, the number of members that predict."""
        return self.spec.members

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.delta.device

    @torch.inference_mode()
    def predict(self, observation: Any, action: Any, member: Any = None) -> Prediction:
        """Predict the next observation's distribution.

        Args:
            observation: [B, O], an array or a tensor.
            action: [B, A], or integers [B] where actions are discrete.
            member: which member alone answers each row, integers [B]; all answer where it is None.
                The prediction then is of one member, at a fraction of the work.

        Raises:
            InvalidInput: a shape is wrong, or there is no such member.
        """
        observation, action = self.check_inputs(observation, action)
        if member is not None:
            member = self._check_member(member, len(observation))
        answer = self._answer(observation, action, member)
        shift = self.target_scaler.mean + self._base(observation)
        return Prediction(answer.affine(self.target_scaler.std, shift))

    def sample(self, observation: Any, action: Any, seed: int) -> tuple[Tensor, Tensor]:
        """Draw one next observation a row, each from a member drawn at random.

        Returns:
            The values of the predicted columns [B, D] and the members' indices [B].
        """
        observation, action = self.check_inputs(observation, action)
        columns = len(self.spec.target_columns)
        member, noise = draw_members(len(observation), range(self.members), columns, seed)
        drawn = self.step(observation, action, member.to(self.device), noise.to(self.device))
        return drawn, member

    @torch.inference_mode()
    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Return one successor a row, without checks: the step that `rollout` repeats.

        Args:
            observation: [B, O].
            action: [B, A], one-hot where actions are discrete.
            member: which member answers each row [B]; None asks for the mixture's mean.
            noise: standard normal draws [B, D] that turn the member's Gaussian into a sample; None
                asks for its mean.

        Returns:
            The values of the predicted columns [B, D].
        """
        answer = self._answer(observation, action, member)
        if noise is not None and member is not None:
            value = answer[0].sample(noise)
        else:
            value = answer.mean.mean(0)
        return self.target_scaler.restore(value) + self._base(observation)

    @torch.inference_mode()
    def step_groups(self, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Return some successors of each row, for rows sorted by member and equally many of each.

        They are those of `step` for the same member and noise.

        Args:
            observation: [E, B, O].
            action: [E, B, A], one-hot where actions are discrete.
            noise: standard normal draws for the N successors of each row [E, B, N, D].

        Returns:
            The values of the predicted columns [E, B, N, D].
        """
        answer: Distribution = self.network(self._inputs(observation, action))
        value = answer.mean.unsqueeze(2)
        if noise is not None:
            value = answer.apply(lambda tensor: tensor.unsqueeze(2)).sample(noise)
        return self.target_scaler.restore(value) + self._base(observation).unsqueeze(2)

    def rollout(
        self,
        observation: Any,
        actions: Any,
        particles: int = 20,
        propagation: Propagation = "tsinf",
        seed: int = 0,
    ) -> Trajectory:
        """Imagine what each action sequence leads to.

        Args:
            observation: start states [S, O].
            actions: [S, P, H, A], or integers [S, P, H] where actions are discrete.
            particles: N, trajectories for each sequence (one suffices for ``expectation``).
            propagation: ``ts1`` draws a member at each step, ``tsinf`` one for the whole
                trajectory; ``moment_matching`` is ``ts1`` with particles redrawn at each step from
                the Gaussian of their moments; ``expectation`` follows the mixture's mean.
            seed: of the members and the noise.

        Raises:
            InvalidInput: a shape is wrong, or the model does not predict the full state.
        """
        self.require_full_state()
        observation = self.as_tensor(observation)
        actions = self.as_tensor(self._encode_actions(actions))
        self._check_columns(observation, actions)
        return rollout(self, observation, actions, particles, propagation, seed)

    def require_full_state(self) -> None:
        """Check that trajectories can be imagined.

        Raises:
            InvalidInput: the model predicts only some of the observation's columns.
        """
        if not self.spec.full_state:
            raise InvalidInput(
                f"expected a model of all {self.spec.observation_size} observation columns for a "
                f"rollout, got one of columns {list(self.spec.target_columns)}; "
                "train without target_columns"
            )

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
        write_json(folder / SPEC_FILE, self.spec)
        save_tensors(folder / WEIGHTS_FILE, self.state_dict())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        precision: PredictionPrecision = "float32",
    ) -> DynamicsModel:
        """Read a model from its folder, such as ``models/slide/3``.

        Args:
            folder: as `save` has written it.
            device: where to predict.
            precision: of the products between hidden layers. bfloat16 is rougher, and faster where
                the processor has units for it; tensors that go in and come out are float32.

        Raises:
            NotFound: there is no model.
            CorruptData: a file is truncated, not finite, or does not fit the spec.
        """
        folder = Path(folder)
        model = cls(read_json(folder / SPEC_FILE, ModelSpec))
        tensors = load_tensors(folder / WEIGHTS_FILE)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:400]
            raise CorruptData(
                f"expected weights that fit {folder / SPEC_FILE}, got {folder / WEIGHTS_FILE} "
                f"({reason}); publish the model anew"
            ) from error
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise CorruptData(
                f"expected finite weights in {folder / WEIGHTS_FILE}, got NaN or infinity; "
                "publish the model anew"
            )
        if precision == "bfloat16":
            model.precision = precision
            model.network.use_bfloat16()
        return model.to(device).eval()

    def subset(self, members: list[int]) -> DynamicsModel:
        """Return a copy of some members, such as the elites, in the order given."""
        subset = DynamicsModel(self.spec.model_copy(update={"members": len(members)}))
        state = {
            name: tensor[members] if name.startswith("network.") else tensor
            for name, tensor in self.state_dict().items()
        }
        subset.load_state_dict(state)
        return subset.to(self.device)

    def check_inputs(self, observation: Any, action: Any) -> tuple[Tensor, Tensor]:
        """Return both as tensors on the model's device, actions encoded.

        Raises:
            InvalidInput: a shape is wrong.
        """
        observation = self.as_tensor(observation)
        action = self.as_tensor(self._encode_actions(action))
        self._check_columns(observation, action, rows_only=True)
        if len(observation) != len(action):
            raise InvalidInput(
                f"expected as many actions as observations, got {len(action)} actions "
                f"and {len(observation)} observations"
            )
        return observation, action

    def as_tensor(self, values: Any) -> Tensor:
        """Return an array or a tensor in the model's dtype and on its device.

        Raises:
            InvalidInput: the values are not numbers, or rows differ in length.
        """
        try:
            if isinstance(values, np.ndarray):
                # Torch takes neither read-only nor reversed nor big-endian arrays.
                values = np.require(values, np.float32, ["C", "W"])
            return torch.as_tensor(values, dtype=torch.float32, device=self.device)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"expected an array of numbers, got {error}") from error

    def _check_columns(self, observation: Tensor, action: Tensor, rows_only: bool = False) -> None:
        for name, tensor, size in (
            ("observation", observation, self.spec.observation_size),
            ("action", action, self.spec.action_size),
        ):
            if not tensor.dim() or tensor.shape[-1] != size or (rows_only and tensor.dim() != 2):
                rows = "rows" if rows_only else "..."
                raise InvalidInput(
                    f"{name}: expected shape [{rows}, {size}], got {list(tensor.shape)}"
                )

    def _encode_actions(self, actions: Any) -> Any:
        space = self.spec.action_space
        if not isinstance(space, DiscreteSpace):
            return actions
        actions = np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions)
        return space.one_hot(actions) if np.issubdtype(actions.dtype, np.integer) else actions

    def _inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        if self.spec.observation_columns != tuple(range(self.spec.observation_size)):
            observation = observation[..., list(self.spec.observation_columns)]
        return self.input_scaler.standardise(torch.cat((observation, action), -1))

    def _base(self, observation: Tensor) -> Tensor:
        if not self.spec.full_state:
            observation = observation[..., list(self.spec.target_columns)]
        return observation * self.delta

    def _answer(self, observation: Tensor, action: Tensor, member: Tensor | None) -> Distribution:
        """Return standardised answers: of all members [E, B, D], or each row's own [1, B, D]."""
        inputs = self._inputs(observation, action)
        if member is None:
            answer: Distribution = self.network(inputs)
            return answer
        slot, width = _slots(member, self.members)
        grouped = inputs.new_zeros(self.members, width, inputs.shape[1])
        grouped[member, slot] = inputs
        own: Distribution = self.network(grouped)[member, slot]
        return own[None]

    def _check_member(self, member: Any, rows: int) -> Tensor:
        if isinstance(member, np.ndarray):
            member = np.require(member, requirements=["C", "W"])
        chosen = torch.as_tensor(member, dtype=torch.int64, device=self.device)
        if chosen.shape != (rows,):
            raise InvalidInput(f"member: expected shape [{rows}], got {list(chosen.shape)}")
        if not ((chosen >= 0) & (chosen < self.members)).all():
            raise InvalidInput(
                f"member: expected 0 to {self.members - 1}, got {chosen.min()} to {chosen.max()}"
            )
        return chosen


def _slots(member: Tensor, members: int) -> tuple[Tensor, int]:
    """Return each row's place among the rows of its member [B], and the largest group's size."""
    counts = torch.bincount(member, minlength=members)
    order = torch.argsort(member, stable=True)
    first = torch.cumsum(counts, 0) - counts
    slot = torch.empty_like(member)
    slot[order] = torch.arange(len(member), device=member.device) - first[member[order]]
    return slot, int(counts.max())
