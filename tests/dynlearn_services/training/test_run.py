import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dynlearn.config import EvaluateConfig, TrainConfig
from dynlearn.data.episodes import Episode
from dynlearn.data.header import DatasetHeader, read_header, save_header
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import Busy, InvalidInput, NumericalFailure
from dynlearn.models.published import load_published
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.storage.folder import open_folder
from dynlearn.training.dataset import split_dataset
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress
from dynlearn.training.provenance import MadeWith, read_environment, read_training
from dynlearn_services.evaluation.run import run_evaluation
from dynlearn_services.home import Home
from dynlearn_services.training import publication
from dynlearn_services.training.publication import NotEvaluated
from dynlearn_services.training.run import TrainingStopped, run_training

CONFIG = TrainConfig(
    dataset="walk", model="walk", members=2, hidden=(8,), max_updates=20, validate_every=10,
    learn_reward=True, device="cpu",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a dataset: a point on a line, rewarded for being far to the right."""
    home = Home(tmp_path)
    write_walks(home.dataset("walk"))
    return home


def write_walks(folder: str, strange: Mapping[int, float] = {}) -> None:
    """Write ten walks, with a place that cannot be in the middle of some."""
    header = DatasetHeader(
        environment="elsewhere/Walk-v0",
        versions={},
        observation_space=ObservationSpace(observation=BoxSpace(low=(-np.inf,), high=(np.inf,))),
        action_space=BoxSpace(low=(-1,), high=(1,)),
        policy="random",
        config={},
        planned=10,
        episodes_per_shard=10,
    )
    writer = EpisodeWriter.create(folder, header)
    episodes = []
    for index in range(10):
        action = np.random.default_rng(index).uniform(-1, 1, (6, 1)).astype(np.float32)
        place = np.concatenate([np.zeros((1, 1)), np.cumsum(action, 0)]).astype(np.float32)
        place[3] = strange.get(index, place[3])
        episodes.append(
            Episode(
                index=index,
                seed=index,
                observations=place,
                actions=action,
                rewards=place[1:, 0].astype(np.float64),
                terminated=np.zeros(6, dtype=bool),
                truncated=np.arange(6) == 5,
            )
        )
    writer.append(episodes)
    writer.finish()


def test_a_run_tells_its_hooks_and_tensorboard_and_publishes(home: Home) -> None:
    told: list[Progress] = []
    version, metrics = run_training(CONFIG, home, Hooks(on_progress=told.append))
    assert [(now.part, now.update, now.updates) for now in told] == [
        ("reward", 10, 20), ("reward", 20, 20), ("dynamics", 10, 20), ("dynamics", 20, 20),
    ]  # fmt: skip
    model, reward = load_published(version.folder)
    assert (model.members, metrics.episodes) == (2, 1)
    assert reward is not None
    run = home.run("walk")
    assert [path.name for path in run.iterdir()] == ["tensorboard"]
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    for member in range(2):
        events = log.Scalars(f"validation/nll/member_{member}")
        values = [now.validation_nll[member] for now in told[2:]]
        assert [event.step for event in events] == [10, 20]
        assert [event.value for event in events] == pytest.approx(values, rel=1e-6)
    rewards = log.Scalars("reward/train/rmse/member_0")
    assert [event.value for event in rewards] == pytest.approx(
        [now.train_rmse[0] for now in told[:2]], rel=1e-6
    )


def test_a_hook_that_ends_a_run_leaves_one_that_goes_on_to_the_same(home: Home) -> None:
    told: list[Progress] = []
    until_the_dynamics = Hooks(
        on_progress=told.append, should_stop=lambda: told[-1:] and told[-1].part == "dynamics"
    )
    with pytest.raises(TrainingStopped, match=r"stopped; go on with .* --resume"):
        run_training(CONFIG, home, until_the_dynamics)
    with pytest.raises(InvalidInput, match="expected no run of model walk that was cut off"):
        run_training(CONFIG, home)
    resumed, _ = run_training(CONFIG.model_copy(update={"resume": True}), home)
    whole, _ = run_training(CONFIG, home)
    for file in ("model.safetensors", "reward/model.safetensors"):
        assert (resumed.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_a_run_that_is_going_on_is_not_resumed_beside_it(home: Home) -> None:
    refused = []

    def resume_it(progress: Progress) -> None:
        with pytest.raises(Busy, match="write to the run of model walk, but process") as caught:
            run_training(CONFIG.model_copy(update={"resume": True}), home)
        refused.append(caught)

    run_training(CONFIG, home, Hooks(on_progress=resume_it))
    assert len(refused) == 4
    assert Registry(home.models).versions("walk") == ["1"]


def test_what_the_environment_was_made_with_is_kept_and_compared(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(home.dataset("walk"))
    header = read_header(str(folder))
    made = header.model_copy(update={"config": {"env_kwargs": {"g": 2.0}, "seed_range": [0, 9]}})
    shutil.copytree(folder, home.dataset("moon"))
    save_header(open_folder(home.dataset("moon")), made)
    version, _ = run_training(CONFIG.model_copy(update={"dataset": "moon"}), home)
    assert read_environment(version.folder) == MadeWith("elsewhere/Walk-v0", {"g": 2.0}, (0, 9))
    assert "| environment made with | {'g': 2.0} |" in (version.folder / "README.md").read_text()
    for dataset, warnings in (("moon", 0), ("walk", 1)):
        caplog.clear()
        run_evaluation(EvaluateConfig(model="walk", dataset=dataset, horizon=2), home)
        told = [message for message in caplog.messages if "made with {'g': 2.0}, got" in message]
        assert len(told) == warnings


def test_a_model_that_cannot_be_evaluated_is_published_and_evaluated_later(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    store = EpisodeStore.open(home.dataset("walk"))
    tested = split_dataset(CONFIG, store)[1].test
    write_walks(home.dataset("strange"), dict.fromkeys(tested, 3e38))
    config = CONFIG.model_copy(update={"dataset": "strange"})
    good, _ = run_training(CONFIG.model_copy(update={"max_updates": 300}), home)
    caplog.clear()
    with pytest.raises(NotEvaluated, match="walk version 2 is published, but could not be eval"):
        run_training(config, home)
    assert f"got 3e+38 in observation[0] of episode {tested[0]}" in caplog.text
    assert "could not be evaluated: expected a finite NLL" in card(home, "walk/2")
    registry = Registry(home.models)
    assert (registry.resolve("walk"), registry.versions("walk")) == (good, ["1", "2"])
    # Nothing is in the way of the next, and the weights are what they would have been.
    run_training(CONFIG, home)
    weights = [
        (home.models / "walk" / version / "model.safetensors").read_bytes() for version in "23"
    ]
    assert weights[0] == weights[1]
    evaluation = EvaluateConfig(model="walk/2", dataset="walk", horizon=2)
    assert run_evaluation(evaluation, home)[0].episodes == 10


def test_a_model_worse_than_no_change_becomes_champion_only_where_there_is_no_other(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    plain = CONFIG.model_copy(update={"learn_reward": False})
    unlearned = plain.model_copy(update={"max_updates": 1, "learning_rate": 1.0})
    trained = plain.model_copy(update={"max_updates": 300})
    registry = Registry(home.models)
    for config, champion, told in (
        (unlearned, "1", "walk version 1 is worse on its 1 held-out episodes than predicting no"),
        (trained, "2", ""),
        (unlearned, "2", "and version 2 stays champion; train for longer or on more episodes"),
    ):
        caplog.clear()
        version, metrics = run_training(config, home)
        assert metrics.worse_than_no_change == bool(told)
        assert told in caplog.text
        assert ("Not to be used" in card(home, f"walk/{version.version}")) == bool(told)
        assert registry.resolve("walk").version == champion


def test_a_run_that_diverged_is_put_aside_and_the_next_begins_anew(home: Home) -> None:
    diverging = CONFIG.model_copy(update={"learning_rate": 1e20, "learn_reward": False})
    for number in (1, 2):
        with pytest.raises(NumericalFailure, match=f"the run is put aside as .*/failed-{number}$"):
            run_training(diverging, home)
        assert (home.run("walk") / f"failed-{number}" / "checkpoint.safetensors").is_file()
    assert run_training(CONFIG, home)[0].version == "1"


def test_what_interrupts_publishing_leaves_a_run_that_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publication, "write_report", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            run_training(CONFIG, home)
    assert Registry(home.models).versions("walk") == []
    told: list[Progress] = []
    resumed = CONFIG.model_copy(update={"resume": True})
    assert run_training(resumed, home, Hooks(on_progress=told.append))[0].version == "1"
    assert told == []


def card(home: Home, model: str) -> str:
    return (Registry(home.models).resolve(model).folder / "README.md").read_text()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a bucket of a small S3 server, with the key to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&allow_bucket_creation=true"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://me:h1dd3n@runs/?{options}")
    filesystem.create_dir("runs")
    yield f"s3://me:h1dd3n@runs/walk?{options}"
    server.stop()


def test_the_key_to_a_dataset_is_written_nowhere(
    home: Home, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    local, _ = fs.FileSystem.from_uri(Path(home.dataset("walk")).as_uri())
    remote, path = fs.FileSystem.from_uri(bucket)
    fs.copy_files(home.dataset("walk"), path, local, remote)
    config = CONFIG.model_copy(update={"dataset": bucket})
    stopping = Hooks(should_stop=lambda: True)
    with pytest.raises(TrainingStopped):
        run_training(config, home, stopping)
    assert_hidden(home.root)
    version, _ = run_training(config.model_copy(update={"resume": True}), home)
    training, made = read_training(version.folder)
    assert training.dataset == made["dataset"]
    assert str(made["dataset"]).startswith("s3://runs/walk?scheme=http&endpoint_override=")
    evaluation = EvaluateConfig(model="walk", dataset=bucket, horizon=2)
    _, folder = run_evaluation(evaluation, home)
    assert folder.name == "walk-1-walk"
    assert "s3://runs/walk" in (folder / "README.md").read_text()
    assert_hidden(home.root)
    assert "h1dd3n" not in caplog.text


def assert_hidden(root: Path) -> None:
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"h1dd3n" in path.read_bytes()] == []
