from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from dynlearn.config import CollectConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn_services.collection.run import plan_dataset
from dynlearn_services.collection.worker import CollectionWorker
from dynlearn_services.exchange.minari import export_minari, import_minari


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
        store.append(worker.play(list(header.shard_indices(shard))))
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
    monkeypatch.setattr("dynlearn_services.exchange.minari._EPISODES_AT_ONCE", 2)
    store = collected(tmp_path / "data", "Pendulum-v1", max_steps=5)
    export_minari(store, "some-data-v0")
    append = EpisodeWriter.append

    def interrupted(self: EpisodeStore, episodes: Any) -> None:
        if episodes[0].index == 2:
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


def test_an_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    export_minari(collected(tmp_path / "data", "Pendulum-v1", max_steps=5), "some-data-v0")
    with pytest.raises(NotFound, match="did you mean some-data-v0"):
        import_minari("some-dato-v0", str(tmp_path / "again"))


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_spaces_of_other_kinds_are_refused(tmp_path: Path) -> None:
    space = gymnasium.spaces.Discrete(3)
    steps = np.zeros(2, dtype=np.int64)
    buffer = EpisodeBuffer(
        observations=np.zeros(3, dtype=np.int64),  # type: ignore[arg-type]
        actions=steps,  # type: ignore[arg-type]
        rewards=[0.0] * 2,
        terminations=[False] * 2,
        truncations=[False] * 2,
    )
    minari.create_dataset_from_buffers(
        "discrete-v0", [buffer], observation_space=space, action_space=space
    )
    with pytest.raises(InvalidInput, match="expected observations that are a 1-D Box"):
        import_minari("discrete-v0", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


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
