import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from minari.data_collector import EpisodeBuffer

from dynlearn.config import CollectConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.spaces import BoxSpace
from dynlearn_services.collection.run import plan_dataset
from dynlearn_services.collection.worker import CollectionWorker
from dynlearn_services.exchange.minari_export import export_minari
from dynlearn_services.exchange.minari_import import import_minari


@pytest.fixture(autouse=True)
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def collected(folder: Path, env: str, **changes: Any) -> EpisodeStore:
    """Collect 5 episodes without Ray."""
    config = CollectConfig(
        dataset="data", env=env, policy="random", episodes=5, episodes_per_shard=2, **changes
    )
    header, max_steps = plan_dataset(config)
    store = EpisodeWriter.create(str(folder), header)
    worker = CollectionWorker(config, max_steps)
    for shard in store.missing_shards():
        store.append(worker.play(list(header.shard_indices(shard))).table)
    store.finish()
    return EpisodeStore.open(str(folder))


@pytest.mark.parametrize(
    "env", ["dynlearn/ObjectSlide-v1", "FetchPickAndPlace-v4", "CartPole-v1", "Pendulum-v1"]
)
def test_a_dataset_comes_back_bit_for_bit(tmp_path: Path, env: str) -> None:
    store = collected(tmp_path / "data", env, max_steps=20)
    export_minari(store, "test/some-data-v3")
    finished = import_minari("test/some-data-v3", str(tmp_path / "again"))
    assert finished.checksum == store.header.checksum
    assert finished.observation_space == store.header.observation_space
    assert finished.action_space == store.header.action_space
    assert (finished.environment, finished.policy) == (env, "random")
    again = EpisodeStore.open(str(tmp_path / "again"))
    again.verify()
    assert again.table().seeds.tolist() == store.table().seeds.tolist()


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with an environment of nested spaces."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    importlib.import_module("robots")
    yield
    del sys.modules["robots"]
    del gymnasium.registry["Robot-v0"]


@pytest.mark.usefixtures("robot")
def test_nested_spaces_and_what_the_environment_was_made_with_come_back(tmp_path: Path) -> None:
    store = collected(tmp_path / "data", "Robot-v0", env_kwargs={"g": 2.0})
    assert set(store.table().rewards.tolist()) == {2.0}
    export_minari(store, "robot-v0")
    theirs = minari.load_dataset("robot-v0")
    assert isinstance(theirs.observation_space, gymnasium.spaces.Tuple)
    assert theirs.env_spec is not None
    assert theirs.env_spec.kwargs == {"g": 2.0}
    assert theirs[0].actions["grip"].shape == (3,)
    finished = import_minari("robot-v0", str(tmp_path / "again"))
    assert finished.checksum == store.header.checksum
    assert finished.observation_space == store.header.observation_space
    assert finished.action_space == store.header.action_space
    assert finished.env_kwargs == {"g": 2.0}


def test_an_environment_that_cannot_be_written_down_is_left_out(tmp_path: Path) -> None:
    spec = gymnasium.spec("Pendulum-v1")
    gymnasium.register("Made-v0", entry_point=load_env_creator(spec.entry_point))
    try:
        store = collected(tmp_path / "data", "Made-v0", max_steps=5)
        export_minari(store, "made-v0")
    finally:
        del gymnasium.registry["Made-v0"]
    assert minari.load_dataset("made-v0").env_spec is None
    assert import_minari("made-v0", str(tmp_path / "again")).checksum == store.header.checksum


def test_what_the_registration_says_is_not_repeated(tmp_path: Path) -> None:
    for name, changes in (("cart-v0", {}), ("short-v0", {"max_steps": 20})):
        export_minari(collected(tmp_path / name, "CartPole-v1", **changes), name)
        finished = import_minari(name, str(tmp_path / f"again-{name}"))
        assert finished.config == {"minari_dataset": name, **changes}


def test_minari_opens_an_export(tmp_path: Path, minari_root: Path) -> None:
    store = collected(tmp_path / "data", "dynlearn/ObjectSlide-v1", max_steps=20)
    export_minari(store, "some-data-v0")
    assert (minari_root / "some-data-v0").is_dir()
    dataset = minari.load_dataset("some-data-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (5, 100)
    for ours, theirs in zip(store.episodes(), dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(ours.observations, theirs.observations["observation"])
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        assert dataset.action_space.contains(theirs.actions[0])
        assert theirs.truncations.tolist() == [False] * 19 + [True]
    environment = dataset.recover_environment()
    assert environment.spec is not None
    assert (environment.spec.id, environment.spec.max_episode_steps) == (
        "dynlearn/ObjectSlide-v1",
        20,
    )


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_a_dataset_made_by_minari_itself_is_imported(tmp_path: Path) -> None:
    space = gymnasium.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
    buffers = [
        EpisodeBuffer(
            observations=np.full((length + 1, 2), length, dtype=np.float64),  # type: ignore[arg-type]
            actions=np.zeros((length, 2), dtype=np.float32),  # type: ignore[arg-type]
            rewards=[0.5] * length,
            terminations=[False] * length,
            truncations=[False] * length,
        )
        for length in (3, 1)
    ]
    minari.create_dataset_from_buffers(
        "foreign-v0", buffers, observation_space=space, action_space=space
    )
    finished = import_minari("foreign-v0", str(tmp_path / "data"))
    assert (finished.episodes, finished.steps, finished.environment) == (2, 4, "unknown")
    table = EpisodeStore.open(str(tmp_path / "data")).table()
    assert table.lengths.tolist() == [3, 1]
    assert table.observations[:, 0].tolist() == [3.0] * 4 + [1.0] * 2
    assert table.observations.dtype == np.float64
    assert table.rewards.tolist() == [0.5] * 4
    assert [episode.seed for episode in table] == [None, None]


def test_existing_names_are_refused_and_kept(tmp_path: Path, minari_root: Path) -> None:
    store = collected(tmp_path / "data", "Pendulum-v1", max_steps=5)
    export_minari(store, "some-data-v0")
    with pytest.raises(InvalidInput, match="id of a new Minari dataset, got some-data-v0"):
        export_minari(store, "some-data-v0")
    with pytest.raises(InvalidInput, match="which is finished; choose another name"):
        import_minari("some-data-v0", str(tmp_path / "data"))
    store.verify()
    assert minari.load_dataset("some-data-v0").total_episodes == 5


def test_a_failed_export_leaves_nothing(tmp_path: Path, minari_root: Path) -> None:
    store = collected(tmp_path / "data", "Pendulum-v1", max_steps=5)
    (tmp_path / "data" / "shards" / "00002.arrow").write_bytes(b"not arrow")
    with pytest.raises(CorruptData, match=r"shards/00002\.arrow"):
        export_minari(store, "some-data-v0")
    assert not (minari_root / "some-data-v0").exists()


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlearn_services.exchange.minari_import._EPISODES_AT_ONCE", 2)
    store = collected(tmp_path / "data", "Pendulum-v1", max_steps=5)
    export_minari(store, "some-data-v0")
    append = EpisodeWriter.append

    def interrupted(self: EpisodeStore, episodes: Any) -> None:
        if episodes.indices[0] == 2:
            raise KeyboardInterrupt
        append(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_minari("some-data-v0", str(tmp_path / "again"))
    finished = import_minari("some-data-v0", str(tmp_path / "again"))
    assert finished.checksum == store.header.checksum


@pytest.mark.parametrize("dataset_id", ["no-version", "../../etc-v0", "", "a b-v0"])
def test_what_is_no_minari_id_is_refused(tmp_path: Path, dataset_id: str) -> None:
    with pytest.raises(InvalidInput, match="expected a Minari id such as slide/random-v0"):
        import_minari(dataset_id, str(tmp_path / "data"))


def test_an_unknown_id_names_the_nearest_whatever_else_is_there(
    tmp_path: Path, minari_root: Path
) -> None:
    (minari_root / "stray" / "data").mkdir(parents=True)
    (minari_root / "notes.txt").write_text("mine")
    export_minari(collected(tmp_path / "data", "Pendulum-v1", max_steps=5), "some-data-v0")
    with pytest.raises(NotFound, match="did you mean some-data-v0"):
        import_minari("some-dato-v0", str(tmp_path / "again"))
    (minari_root / "half-v0" / "data").mkdir(parents=True)
    with pytest.raises(NotFound, match="got 'half-v0'"):
        import_minari("half-v0", str(tmp_path / "again"))


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_images_are_refused_by_name(tmp_path: Path) -> None:
    space = gymnasium.spaces.Dict({"camera": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    foreign("images-v0", {"camera": np.zeros((3, 4, 4, 3), np.uint8)}, np.zeros(2, np.int64), space)
    with pytest.raises(InvalidInput, match=r"got camera, images of shape \[4, 4, 3\]"):
        import_minari("images-v0", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_nested_spaces_become_columns(tmp_path: Path) -> None:
    space = gymnasium.spaces.Dict(
        {
            "arm": gymnasium.spaces.Tuple(
                (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.MultiBinary(1))
            ),
            "grip": gymnasium.spaces.Discrete(2),
        }
    )
    joints = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    observations = {
        "arm": (joints, np.array([[0], [1], [0]], np.int8)),
        "grip": np.array([0, 1, 1]),
    }
    actions = np.array([[0, 2], [1, 1]])
    foreign("nested-v0", observations, actions, space, gymnasium.spaces.MultiDiscrete([2, 3]))
    finished = import_minari("nested-v0", str(tmp_path / "data"))
    box, chosen = finished.observation_space.observation, finished.action_space
    assert box.columns == ("arm.0[0]", "arm.0[1]", "arm.1[0]", "grip=0", "grip=1")
    assert isinstance(chosen, BoxSpace)
    assert chosen.one_hot == ((0, 2), (2, 3))
    table = EpisodeStore.open(str(tmp_path / "data")).table()
    np.testing.assert_allclose(
        table.observations,
        [[0.1, 0.2, 0, 1, 0], [0.3, 0.4, 1, 0, 1], [0.5, 0.6, 0, 0, 1]],
        rtol=1e-6,
    )
    assert table.actions.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]


def foreign(
    dataset_id: str,
    observations: Any,
    actions: Any,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any] | None = None,
) -> None:
    """Make a Minari dataset of one episode of two steps, in Minari's own way."""
    buffer = EpisodeBuffer(
        observations=observations,
        actions=actions,
        rewards=[0.0] * 2,
        terminations=[False] * 2,
        truncations=[False] * 2,
    )
    minari.create_dataset_from_buffers(
        dataset_id,
        [buffer],
        observation_space=observation_space,
        action_space=action_space or gymnasium.spaces.Discrete(3),
    )


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_actions_outside_their_space_and_outliers_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = gymnasium.spaces.Box(-1, 1, (2,))
    actions, observations = np.array([[-3, 0], [1, 0.5]]), np.ones((3, 2))
    foreign("wide-v0", observations, actions, box, box)
    import_minari("wide-v0", str(tmp_path / "data"))
    (told,) = caplog.messages
    assert told == (
        "warning: expected actions within the bounds of their space, got others: "
        "action[0] in 0.5 of the steps"
    )
    caplog.clear()
    observations[2, 1] = 1e29
    foreign("far-v0", observations, actions / 3, box, box)
    import_minari("far-v0", str(tmp_path / "far"))
    (told,) = caplog.messages
    assert "got 1e+29 in observation[1] of episode 0, where" in told


def break_metadata(data: Path) -> None:
    (data / "metadata.json").write_text("{")


def cut_off(data: Path) -> None:
    file = data / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])


def drop_an_array(data: Path) -> None:
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]


def add_nan(data: Path) -> None:
    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_1/rewards"][2] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_metadata, "expected a whole Minari dataset"),
        (cut_off, "expected a whole Minari dataset"),
        (drop_an_array, "expected a whole Minari dataset.*rewards"),
        (add_nan, "rewards of episode 1, got nan in row 2"),
    ],
)
def test_a_damaged_minari_dataset_is_one_line(
    tmp_path: Path, minari_root: Path, damage: Callable[[Path], None], message: str
) -> None:
    export_minari(collected(tmp_path / "data", "Pendulum-v1", max_steps=5), "some-data-v0")
    damage(minari_root / "some-data-v0" / "data")
    with pytest.raises(CorruptData, match=message) as caught:
        import_minari("some-data-v0", str(tmp_path / "again"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_a_folder_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = collected(tmp_path / "data", "Pendulum-v1", max_steps=5)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "minari"))
    with pytest.raises(InvalidInput, match="Minari's folder to be readable and writable") as caught:
        export_minari(store, "some-data-v0")
    assert "\n" not in str(caught.value)


def test_discrete_actions_stay_integers(tmp_path: Path) -> None:
    store = collected(tmp_path / "data", "CartPole-v1", max_steps=20)
    export_minari(store, "cart-v0")
    data = minari.load_dataset("cart-v0")[4]
    (episode,) = store.table([4])
    assert data.actions.dtype == np.int64
    np.testing.assert_array_equal(data.actions, episode.actions)
    np.testing.assert_array_equal(data.terminations, episode.terminated)
