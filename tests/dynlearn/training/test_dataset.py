from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.data.episodes import Episode
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.evaluation.reward import reward_rmse
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn.training.dataset import split_dataset, train
from dynlearn.training.extras import reward_checkpoint
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress

EPISODES, STEPS = 20, 8


def _config(**options: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "dataset": "d",
            "model": "m",
            "members": 3,
            "hidden": (16,),
            "batch_size": 32,
            "max_updates": 30,
            "validate_every": 10,
            "learning_rate": 1e-2,
            **options,
        }
    )


def _dataset(
    folder: Path,
    actions: ActionSpace = BoxSpace(low=(-1,), high=(1,)),  # noqa: B008
    spoil: tuple[int, ...] = (),
    spike: int | None = None,
    reward_scale: float = 1.0,
    count: int = EPISODES,
    steps: int = STEPS,
) -> EpisodeStore:
    """A walk: the first column moves by 0.1 times the action, the second by the first.

    The reward is where the first column moves to.
    """
    header = DatasetHeader(
        environment="elsewhere/Walk-v0",
        versions={},
        observation_space=ObservationSpace(
            observation=BoxSpace(low=(-np.inf,) * 2, high=(np.inf,) * 2)
        ),
        action_space=actions,
        policy="random",
        config={},
        planned=count,
        episodes_per_shard=count,
    )
    store = EpisodeWriter.create(str(folder), header)
    episodes = []
    for index in range(count):
        rng = np.random.default_rng(index)
        if isinstance(actions, DiscreteSpace):
            action = rng.integers(actions.start, actions.start + actions.n, steps)
            push = action.astype(np.float64)
        else:
            action = rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
            push = action[:, 0]
        position = np.concatenate([[0], np.cumsum(0.1 * push)])
        track = np.concatenate([[1], 1 + np.cumsum(position[:-1])])
        observations = np.stack([position, track], 1).astype(np.float32)
        if index == spike:
            observations[-1, 0] = 1e12
        episodes.append(
            Episode(
                index=index,
                seed=index,
                observations=observations + 1000 * (index in spoil),
                actions=action,
                rewards=reward_scale * position[1:],
                terminated=np.zeros(steps, dtype=bool),
                truncated=np.arange(steps) == steps - 1,
            )
        )
    store.append(episodes)
    store.finish()
    return EpisodeStore.open(str(folder))


def _equal(first: DynamicsModel, second: DynamicsModel) -> bool:
    one, other = first.regressor.state_dict(), second.regressor.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_dataset_becomes_a_model_that_predicts_it(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d")
    config = _config(max_updates=600, validate_every=100)
    updates: list[int] = []
    trained = train(config, store, Hooks(on_progress=lambda now: updates.append(now.update)))
    assert trained is not None
    assert updates == [100, 200, 300, 400, 500, 600]
    assert trained.updates == 600
    assert [entry["update"] for entry in trained.history] == updates
    assert not trained.model.regressor.training
    store, split = split_dataset(config, store)
    table = store.table(split.test)
    for episode in table:
        prediction = trained.model.predict(episode.observations[:-1], episode.actions)
        error = (prediction.mean.numpy() - episode.observations[1:]).std(0)
        change = np.diff(episode.observations, axis=0).std(0)
        assert (error < 0.2 * change).all()


def test_the_test_episodes_are_left_alone(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d")
    _, split = split_dataset(_config(), store)
    assert (len(split.train), len(split.validation), len(split.test)) == (16, 2, 2)
    clean = train(_config(), store)
    spoilt = train(_config(), _dataset(tmp_path / "t", spoil=tuple(split.test.tolist())))
    assert clean is not None
    assert spoilt is not None
    assert _equal(clean.model, spoilt.model)
    seen = train(_config(), _dataset(tmp_path / "v", spoil=tuple(split.validation.tolist())))
    assert seen is not None
    assert clean.history != seen.history


def test_the_reward_is_learned_where_that_is_asked_for(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d")
    plain = train(_config(max_updates=200), store)
    shown: list[tuple[str, int, int]] = []
    hooks = Hooks(on_progress=lambda now: shown.append((now.part, now.update, now.updates)))
    both = train(_config(max_updates=200, learn_reward=True), store, hooks)
    assert shown == [
        (what, update, 200) for what in ("reward", "dynamics") for update in range(10, 201, 10)
    ]
    assert plain is not None
    assert both is not None
    assert plain.reward is None
    assert _equal(plain.model, both.model)
    assert both.reward is not None
    _, split = split_dataset(_config(), store)
    table = store.table(split.test)
    assert reward_rmse(both.reward, table, store.header.action_space) < 0.3 * table.rewards.std()


@pytest.mark.parametrize("in_the_reward", [True, False])
def test_a_stop_while_the_reward_is_learned_or_after_loses_nothing(
    tmp_path: Path, in_the_reward: bool
) -> None:
    store, config = _dataset(tmp_path / "d"), _config(learn_reward=True)
    whole = train(config, store, Hooks(tmp_path / "whole.safetensors"))
    checkpoint = tmp_path / "cut.safetensors"
    beside = reward_checkpoint(checkpoint)
    stop = beside if in_the_reward else checkpoint
    assert train(config, store, Hooks(checkpoint, should_stop=stop.exists)) is None
    assert (beside.exists(), checkpoint.exists()) == (True, not in_the_reward)
    again = train(config, store, Hooks(checkpoint))
    assert whole is not None
    assert again is not None
    assert _equal(whole.model, again.model)
    zeros = torch.zeros(1, 2), torch.ones(1, 1), torch.ones(1, 2), torch.zeros(1, 0)
    assert whole.reward is not None
    assert again.reward is not None
    assert torch.equal(whole.reward(*zeros), again.reward(*zeros))


def test_a_reward_that_cannot_be_learned_is_known_before_the_dynamics_are(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d", reward_scale=1e40)
    updates: list[int] = []
    with pytest.raises(CorruptData, match=r"^the reward: expected finite"):
        train(
            _config(learn_reward=True),
            store,
            Hooks(on_progress=lambda now: updates.append(now.update)),
        )
    assert not updates


def test_discrete_actions_are_learned(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d", DiscreteSpace(n=3, start=-1))
    trained = train(_config(max_updates=400, validate_every=100), store)
    assert trained is not None
    assert trained.model.spec.action_size == 3
    moved = trained.model.predict([[0.0, 1.0]] * 3, [-1, 0, 1]).mean[:, 0]
    np.testing.assert_allclose(moved, [-0.1, 0, 0.1], atol=0.03)


def test_a_stopped_run_gives_no_model_and_goes_on_to_the_same(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d")
    undisturbed = train(_config(), store)
    assert train(_config(), store, Hooks(tmp_path / "c", should_stop=lambda: True)) is None
    resumed = train(_config(resume=True), store, Hooks(tmp_path / "c"))
    assert undisturbed is not None
    assert resumed is not None
    assert _equal(undisturbed.model, resumed.model)
    assert undisturbed.history == resumed.history


def test_elites_are_kept_and_can_be_loaded(tmp_path: Path) -> None:
    store = _dataset(tmp_path / "d")
    best = torch.full((3,), torch.inf)

    def watch(progress: Progress) -> None:
        best.copy_(torch.minimum(best, torch.tensor(progress.validation_nll)))

    whole = train(_config(seed=5), store, Hooks(on_progress=watch))
    elites = train(_config(elites=2, seed=5), store)
    assert whole is not None
    assert elites is not None
    chosen = best.argsort()[:2].tolist()
    assert chosen != [0, 1], "the best must not be the first for this test to see anything"
    rows = np.zeros((1, 2)), np.zeros((1, 1))
    expected = whole.model.predict(*rows).member_means[chosen]
    torch.testing.assert_close(elites.model.predict(*rows).member_means, expected)
    elites.model.save(tmp_path)
    assert _equal(DynamicsModel.load(tmp_path), elites.model)


def test_more_elites_than_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected at most 3 elites, got 4; raise members"):
        train(_config(elites=4), _dataset(tmp_path / "d"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_columns": (2,)}, "target_columns: expected distinct columns 0 to 1, got (2,)"),
        ({"observation_columns": (0, 0)}, "observation_columns: expected distinct columns"),
        (
            {"target_columns": (0,), "absolute_columns": (1,)},
            "absolute_columns: expected some of the target columns (0,), got (1,)",
        ),
        ({"hidden": (0,)}, "hidden.0: expected greater than or equal to 1, got 0"),
        ({"hidden": (10**9,)}, "hidden.0: expected less than or equal to 65536, got"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        train(_config(**options), _dataset(tmp_path / "d"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("objective", ["mse", "moment_matching", "student_t", "xvamp", "vbem_star"])
def test_objectives_without_a_full_covariance_refuse_it(tmp_path: Path, objective: str) -> None:
    with pytest.raises(InvalidInput, match=f"expected a diagonal covariance with {objective}"):
        train(_config(objective=objective, covariance="full"), _dataset(tmp_path / "d"))


def test_one_long_trajectory_is_split_within(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = _dataset(tmp_path / "d", count=1, steps=410)
    config = _config(max_updates=600, validate_every=100)
    trained = train(config, store)
    assert trained is not None
    assert caplog.messages[0] == (
        "1 episode is split within, into 34 blocks of about 11 steps with gaps of 1"
    )
    blocks, split = split_dataset(config, store)
    assert (len(split.train), len(split.validation), len(split.test)) == (28, 3, 3)
    for episode in blocks.table(split.test):
        prediction = trained.model.predict(episode.observations[:-1], episode.actions)
        error = (prediction.mean.numpy() - episode.observations[1:]).std(0)
        change = np.diff(episode.observations, axis=0).std(0)
        assert (error < 0.3 * change).all()


def test_a_trajectory_too_short_to_be_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="got 1 in all; collect more or longer ones"):
        train(_config(), _dataset(tmp_path / "d", count=1, steps=12))


def test_a_number_that_cannot_be_right_is_told_with_its_episode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(_config(), _dataset(tmp_path / "good")) is not None
    assert "expected numbers of one size" not in caplog.text
    held_out = set(split_dataset(_config(), EpisodeStore.open(tmp_path / "good"))[1].test)
    spoilt = next(index for index in range(EPISODES) if index not in held_out)
    store = _dataset(tmp_path / "bad", spike=spoilt)
    train(_config(), store)
    assert f"of episode {spoilt}, where nearly all are within" in caplog.text
