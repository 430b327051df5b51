"""What callers may give a model, by way of the dynamics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.spaces import DiscreteSpace

MakeModel = Callable[..., DynamicsModel]


def _rows(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(count, 3)).astype(np.float32)
    return observation, rng.uniform(-1, 1, (count, 2)).astype(np.float32)


def test_discrete_actions_are_one_hot(make_model: MakeModel) -> None:
    model = make_model(action_space=DiscreteSpace(n=3, start=1))
    observation, _ = _rows(2)
    codes = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    expected = model.predict(observation, codes)
    for action in ([3, 1], np.array([3, 1]), np.array([3, 1], np.uint8), torch.tensor([3, 1])):
        found = model.predict(observation, action)
        assert torch.equal(found.member_means, expected.member_means)
    column = model.predict(observation, np.array([[3], [1]]))
    assert torch.equal(column.member_means, expected.member_means)
    for wrong in ([0, 1], [1, 4]):
        with pytest.raises(InvalidInput, match=r"action: expected integers 1 to 3, got"):
            model.predict(observation, wrong)
    sequences = np.array([[[3, 1]]])
    trajectory = model.rollout(observation[:1], sequences, particles=2, seed=0)
    coded = model.rollout(observation[:1], codes[None, None], particles=2, seed=0)
    assert torch.equal(trajectory.particles, coded.particles)


def test_rows_can_come_as_any_array(make_model: MakeModel) -> None:
    model = make_model()
    observation, action = _rows(4)
    expected = model.predict(observation, action).mean
    frozen = observation.copy()
    frozen.flags.writeable = False
    backwards = observation[::-1].copy()[::-1]
    for other in (
        frozen,
        backwards,
        np.asfortranarray(observation),
        observation.astype(np.float64),
        observation.astype(">f4"),
        observation.tolist(),
        torch.from_numpy(observation),
        torch.from_numpy(observation).double(),
    ):
        assert torch.equal(model.predict(other, action).mean, expected)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        ((2, 4), (2, 2), "observation: expected shape [rows, 3], got [2, 4]"),
        ((3,), (1, 2), "observation: expected shape [rows, 3], got [3]"),
        ((2, 3), (2, 1), "action: expected shape [rows, 2], got [2, 1]"),
        ((2, 3), (3, 2), "got 3 actions and 2 observations"),
        # As many columns together as there must be, and yet wrong.
        ((2, 4), (2, 1), "observation: expected shape [rows, 3], got [2, 4]"),
    ],
)
def test_wrong_shapes_are_refused(
    make_model: MakeModel, observation: tuple[int, ...], action: tuple[int, ...], message: str
) -> None:
    model = make_model()
    for ask in (model.predict, lambda *parts: model.sample(*parts, 0)):
        with pytest.raises(InvalidInput) as caught:
            ask(np.zeros(observation), np.zeros(action))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("observation", "actions"),
    [
        ((1, 4), (1, 2, 3, 1)),
        ((1, 1), (1, 2, 3, 4)),
        ((1, 3), (1, 2, 3, 1)),
        ((1, 3), (2, 2, 3, 2)),
        ((3,), (1, 2, 3, 2)),
        ((1, 3), (1, 3, 2)),
        ((1, 3), (1, 0, 3, 2)),
        ((), (1, 2, 3, 2)),
    ],
)
def test_wrong_shapes_for_a_rollout_are_refused(
    make_model: MakeModel, observation: tuple[int, ...], actions: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        make_model().rollout(np.zeros(observation), np.zeros(actions))


@pytest.mark.parametrize("member", [[0, 1], [0, 0, 3], [0, 0, -1]])
def test_members_that_are_not_there_are_refused(make_model: MakeModel, member: list[int]) -> None:
    with pytest.raises(InvalidInput, match="member: expected"):
        make_model().predict(torch.zeros(3, 3), torch.zeros(3, 2), member)
