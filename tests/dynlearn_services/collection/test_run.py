import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynlearn.config import CollectConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.header import read_header
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection.measures import Measures
from dynlearn_services.collection.recorder import Played
from dynlearn_services.collection.run import block_size, collect, plan_dataset
from dynlearn_services.collection.worker import CollectionWorker
from dynlearn_services.collection.writer import CollectProgress

HERE = Path(__file__).parent
VECTORS = ["CountingNextStep-v0", "CountingSameStep-v0", "CountingDisabled-v0"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `counting_environments` be imported, as a user's package is."""
    monkeypatch.syspath_prepend(str(HERE))


def config(env: str = "Counting-v0", **changes: Any) -> CollectConfig:
    if env.startswith("Counting"):
        env = f"counting_environments:{env}"
    fields = {"dataset": "data", "env": env, "policy": "random", "episodes": 24, "seed": 3}
    return CollectConfig(**(fields | {"episodes_per_shard": 8} | changes))


def played(config: CollectConfig, indices: list[int]) -> Played:
    return CollectionWorker(config, plan_dataset(config)[1]).play(indices)


def play(config: CollectConfig, indices: list[int]) -> EpisodeTable:
    return played(config, indices).table


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("env", ["Counting-v0", *VECTORS])
def test_no_transition_crosses_a_reset(env: str) -> None:
    table = play(config(env), list(range(40)))
    lengths_seen = set()
    for episode in table:
        steps = len(episode)
        length = int(episode.observations[0, 1])
        assert steps == min(length, 6)
        assert episode.observations[:, 0].tolist() == list(range(steps + 1))
        assert (episode.observations[:, 1] == length).all()
        assert episode.terminated.tolist() == [count == length for count in range(1, steps + 1)]
        assert episode.truncated.tolist() == [count == 6 for count in range(1, steps + 1)]
        np.testing.assert_array_equal(episode.rewards, episode.actions)
        lengths_seen.add(length)
    assert lengths_seen == set(range(1, 9))


@pytest.mark.parametrize("env", VECTORS)
def test_episodes_stepped_together_equal_those_played_alone(env: str) -> None:
    indices = list(range(40))
    assert play(config(env), indices).digests() == play(config(), indices).digests()


@pytest.mark.parametrize(
    ("env", "policy"),
    [("dynlearn/ObjectSlide-v1", "scripted"), ("FetchPickAndPlace-v4", "scripted")],
)
def test_an_episode_depends_on_its_index_alone(env: str, policy: str) -> None:
    options = config(env, policy=policy, noise=0.3, random_share=0.3)
    together = play(options, [0, 1, 2, 3]).digests()
    worker = CollectionWorker(options, plan_dataset(options)[1])
    assert [worker.play([index]).table.digests()[0] for index in (3, 1)] == [
        together[3],
        together[1],
    ]


@pytest.mark.parametrize("env", ["Counting-v0", *VECTORS])
def test_the_environment_says_what_success_is_where_no_task_does(env: str) -> None:
    found = played(config(env), list(range(40)))
    ended = [episode.terminated[-1] and len(episode) % 2 == 0 for episode in found.table]
    assert list(found.successes) == ended
    measures = Measures(config(env).env)
    measures.add(found)
    assert measures.success_share == np.mean(ended)
    assert measures.contact_share is None


def test_an_environment_that_says_nothing_of_success_has_no_share() -> None:
    options = config("Pendulum-v1", max_steps=3)
    measures = Measures("Pendulum-v1")
    measures.add(played(options, [0, 1]))
    assert measures.success_share is None


def test_seeds_differ_by_dataset_and_episode() -> None:
    seeds = {episode_seeds(dataset, index)[0] for dataset in range(20) for index in range(20)}
    assert len(seeds) == 400
    seed, generator = episode_seeds(1, 2)
    again, same = episode_seeds(1, 2)
    assert (seed, generator.random()) == (again, same.random())
    assert 0 <= seed < 2**32


@pytest.mark.parametrize("env", ["Counting-v0", *VECTORS])
def test_max_steps_truncates(env: str) -> None:
    table = play(config(env, max_steps=2), list(range(20)))
    assert set(table.lengths.tolist()) == {1, 2}
    for episode in table:
        assert episode.truncated.tolist() == [count == 2 for count in range(1, len(episode) + 1)]


def test_the_environments_own_dtypes_are_kept() -> None:
    table = play(config("FetchPickAndPlace-v4"), [0])
    assert (table.observations.dtype, table.actions.dtype) == (np.float64, np.float32)
    assert table.desired_goals is not None
    assert table.desired_goals.shape == (51, 3)


def test_one_two_and_four_workers_give_the_same_bytes(ray_session: None, tmp_path: Path) -> None:
    checksums = set()
    for workers in (1, 2, 4):
        options = config("dynlearn/ObjectSlide-v1", policy="scripted", workers=workers)
        uri = str(tmp_path / str(workers))
        finished = collect(options, uri)
        checksums.add(finished.checksum)
        EpisodeStore.open(uri).verify()
        assert content(tmp_path / str(workers)) == content(tmp_path / "1")
    assert len(checksums) == 1
    assert finished.versions.keys() >= {"python", "numpy", "gymnasium", "mujoco"}
    assert "dataset" not in finished.config
    other = collect(config("dynlearn/ObjectSlide-v1", seed=4), str(tmp_path / "other"))
    assert other.checksum not in checksums


def worker_processes() -> list[int]:
    """Return the processes of this test's own collection workers."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                titles[int(folder.name)] = (folder / "cmdline").read_bytes()
                parents[int(folder.name)] = int(status[1])
            except OSError:
                continue
    return [
        pid
        for pid, title in titles.items()
        if title.startswith(b"ray::CollectionWorker") and parents.get(parents[pid]) == os.getpid()
    ]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
def test_a_killed_worker_does_not_show_in_the_dataset(ray_session: None, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(progress: CollectProgress) -> None:
        if not killed:
            killed.append(worker_processes()[0])
            os.kill(killed[0], signal.SIGKILL)

    collect(config("CountingSlowly-v0", workers=2), str(tmp_path / "disturbed"), kill_one)
    assert len(killed) == 1
    collect(config("CountingSlowly-v0", workers=4), str(tmp_path / "undisturbed"))
    assert content(tmp_path / "disturbed") == content(tmp_path / "undisturbed")


def test_an_interrupted_collection_goes_on(ray_session: None, tmp_path: Path) -> None:
    collect(config(), str(tmp_path / "undisturbed"))
    uri = str(tmp_path / "data")

    def interrupt(progress: CollectProgress) -> None:
        if progress.episodes >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config(), uri, interrupt)
    with pytest.raises(CorruptData, match="of 24 episodes; go on with it by dynlearn collect"):
        EpisodeStore.open(uri)
    with pytest.raises(InvalidInput, match=r"noise \(0.3, now 0.0\), seed \(3, now 4\)"):
        collect(config(seed=4, noise=0.0, resume=True), uri)

    progress: list[CollectProgress] = []
    collect(config(resume=True, workers=1), uri, progress.append)
    assert content(tmp_path / "data") == content(tmp_path / "undisturbed")
    assert [one.episodes for one in progress] == list(range(14, 25, 2))
    collect(config(resume=True), uri)
    with pytest.raises(InvalidInput, match="which is finished; choose another name"):
        collect(config(), uri)


SCRIPT = """
import sys
from dynlearn.config import CollectConfig
from dynlearn_services.collection.run import collect
sys.path.append(sys.argv[3])
config = CollectConfig.model_validate_json(sys.argv[1])
collect(config, sys.argv[2], lambda progress: print(progress.episodes, flush=True))
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that collects, with a Ray of its own."""
    slow = config("CountingSlowly-v0", episodes=200).model_dump_json()
    command = [sys.executable, "-c", SCRIPT, slow, str(tmp_path / "data"), str(HERE)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        yield running
        running.kill()


def test_sigterm_leaves_a_dataset_that_goes_on(
    ray_session: None, process: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert process.stdout is not None
    first = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    played = [first, *map(int, output.split())]
    uri = str(tmp_path / "data")
    assert not read_header(uri).finished

    slow = config("CountingSlowly-v0", episodes=200, resume=True, workers=4)
    progress: list[CollectProgress] = []
    finished = collect(slow, uri, progress.append)
    assert progress[0].episodes > played[-1]
    assert finished.episodes == 200
    EpisodeStore.open(uri).verify()


def test_progress_counts_contact_and_success(
    ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress: list[CollectProgress] = []
    options = config("dynlearn/ObjectSlide-v1", policy="scripted", noise=0.0, random_share=0.0)
    collect(options, str(tmp_path / "data"), progress.append)
    last = progress[-1]
    assert (last.episodes, last.planned, last.steps) == (24, 24, 24 * 30)
    assert [one.episodes for one in progress] == list(range(2, 25, 2))
    assert last.steps_per_s > 0
    assert last.success_share is not None
    assert last.success_share > 0.8
    assert last.contact_share is not None
    # The script pushes once an episode.
    assert last.contact_share == pytest.approx(1 / 30, rel=0.3)

    caplog.set_level("INFO")
    collect(config(), str(tmp_path / "without"), progress.append)
    # Said before the work, not after it.
    assert "will not act in counting_environments:Counting-v0: expected cont" in caplog.messages[0]
    assert progress[-1].contact_share is None
    # What the environment itself says.
    assert progress[-1].success_share == 0.25


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CountingToNan-v0", "episode .* got rewards that are not finite at step 2"),
        ("CountingTooNarrow-v0", r"observations of shape \(2,\) .*, got \(1,\) at step 0 "),
    ],
)
def test_what_is_not_data_is_refused_and_leaves_nothing(
    ray_session: None, tmp_path: Path, env: str, message: str
) -> None:
    with pytest.raises(CorruptData, match=message) as caught:
        collect(config(env, episodes=100, episodes_per_shard=100), str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env": "dynlearn/ObjectSlid-v1"}, NotFound, "dynlearn/ObjectSlide-v1"),
        ({"env": "CountingForever-v0"}, InvalidInput, "max.steps"),
        ({"policy": "scriptd"}, InvalidInput, "did you mean scripted"),
        ({"env": "no_such_package:Env-v0"}, NotFound, "no_such_package"),
    ],
)
def test_options_that_cannot_be_followed_leave_nothing(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        collect(config(**options), str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 8])
def test_blocks_do_not_depend_on_the_workers(workers: int) -> None:
    def size(env: str, max_steps: int, episodes: int) -> int:
        options = config(env, workers=workers, episodes=episodes, episodes_per_shard=10_000)
        return block_size(options, max_steps)

    assert size("dynlearn/ObjectSlide-v1", 30, 10_000) == 512
    assert size("dynlearn/ObjectSlide-v1", 30, 500) == 125
    assert size("FetchPickAndPlace-v4", 50, 500) == 10
    assert size("FetchPickAndPlace-v4", 50, 1) == 1
    assert size("Counting-v0", 1000, 500) == 1
