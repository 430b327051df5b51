import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.faults import MOST_FAULTS, EpisodeFault
from dynlearn.data.header import DatasetHeader, list_datasets, read_header
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import before_each_step
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import Busy, CorruptData, InvalidInput, NotFound
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace


def header(**changes: Any) -> DatasetHeader:
    fields: dict[str, Any] = {
        "environment": "Counting-v0",
        "versions": {"numpy": "2"},
        "observation_space": ObservationSpace(
            observation=BoxSpace(low=(-np.inf, 0.0), high=(np.inf, 9.0)),
            goal=BoxSpace(low=(0.0,), high=(1.0,), dtype="float64"),
        ),
        "action_space": BoxSpace(low=(-1.0,) * 3, high=(1.0,) * 3),
        "policy": "random",
        "config": {"seed": 0, "noise": 0.5},
        "planned": 5,
        "episodes_per_shard": 2,
    }
    return DatasetHeader(**(fields | changes))


def episode(index: int) -> Episode:
    steps = 2 + index
    random = np.random.default_rng(index)
    return Episode(
        index=index,
        seed=None if index == 3 else 1000 + index,
        observations=random.random((steps + 1, 2), dtype=np.float32),
        actions=random.random((steps, 3), dtype=np.float32),
        rewards=random.random(steps),
        terminated=np.arange(steps) == steps - 1,
        truncated=np.zeros(steps, dtype=bool),
        achieved_goals=random.random((steps + 1, 1)),
        desired_goals=random.random((steps + 1, 1)),
    )


EPISODES = [episode(index) for index in range(5)]
DIGESTS = EpisodeTable.of(EPISODES).digests()


def write(uri: str, **changes: Any) -> DatasetHeader:
    planned = header(**changes)
    store = EpisodeWriter.create(uri, planned)
    for shard in store.missing_shards():
        store.append([EPISODES[index] for index in planned.shard_indices(shard)])
    return store.finish()


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    uri = str(tmp_path / "data")
    finished = write(uri)
    assert (finished.episodes, finished.steps) == (5, 2 + 3 + 4 + 5 + 6)
    assert sorted(content(tmp_path / "data")) == [
        "dataset.json",
        "shards/00000.arrow",
        "shards/00001.arrow",
        "shards/00002.arrow",
    ]
    store = EpisodeStore.open(uri)
    assert store.header == finished
    assert store.table().digests() == DIGESTS
    assert [one.seed for one in store.episodes()] == [1000, 1001, 1002, None, 1004]
    assert store.table([4, 1]).digests() == [DIGESTS[1], DIGESTS[4]]
    assert [one.index for one in store.episodes([3, 2])] == [2, 3]
    store.verify()


def test_equal_episodes_give_equal_bytes_and_the_checksum_ignores_shards(tmp_path: Path) -> None:
    first = write(str(tmp_path / "a"))
    write(str(tmp_path / "b"))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    other = write(str(tmp_path / "c"), episodes_per_shard=5)
    assert other.checksum == first.checksum
    assert len(other.shards) == 1


def test_a_single_shard_is_read_without_a_copy(tmp_path: Path) -> None:
    write(str(tmp_path / "data"), episodes_per_shard=5)
    table = EpisodeStore.open(str(tmp_path / "data")).table()
    assert not table.observations.flags.owndata
    assert not table.observations.flags.writeable


def test_a_path_is_as_good_as_its_name(tmp_path: Path) -> None:
    with EpisodeWriter.create(tmp_path / "data", header()) as writer:
        writer.append(EPISODES[:2])
    assert list_datasets(tmp_path) == ["data"]
    assert not read_header(tmp_path / "data").finished
    writer = EpisodeWriter.create(tmp_path / "data", header(), resume=True)
    for first in (2, 4):
        writer.append(EPISODES[first : first + 2])
    writer.finish()
    assert EpisodeStore.open(tmp_path / "data").table().digests() == DIGESTS


def test_discrete_actions_are_kept_as_integers(tmp_path: Path) -> None:
    planned = header(
        observation_space=ObservationSpace(observation=BoxSpace(low=(0.0,), high=(1.0,))),
        action_space=DiscreteSpace(n=3, start=-1),
        planned=1,
    )
    store = EpisodeWriter.create(str(tmp_path / "data"), planned)
    flags = np.array([False, True])
    observations = np.zeros((3, 1), dtype=np.float32)
    store.append([Episode(0, 1, observations, np.array([-1, 1]), np.ones(2), flags, ~flags)])
    store.finish()
    table = EpisodeStore.open(str(tmp_path / "data")).table()
    assert table.actions.tolist() == [-1, 1]
    assert table.actions.dtype == np.int64
    assert table.achieved_goals is None
    assert table.terminated.tolist() == [False, True]


def test_a_missing_dataset_names_the_nearest(tmp_path: Path) -> None:
    write(str(tmp_path / "slide-random"))
    (tmp_path / "unrelated").mkdir()
    with pytest.raises(NotFound, match="did you mean slide-random"):
        EpisodeStore.open(str(tmp_path / "slide-rondom"))
    assert list_datasets(str(tmp_path)) == ["slide-random"]
    assert list_datasets(str(tmp_path / "nothing")) == []


def test_an_unfinished_dataset_says_how_far_it_is_and_goes_on(tmp_path: Path) -> None:
    write(str(tmp_path / "undisturbed"))
    uri = str(tmp_path / "data")
    store = EpisodeWriter.create(uri, header())
    with pytest.raises(CorruptData, match=r"got 0 of 5 episodes.*--resume"):
        EpisodeStore.open(uri)
    store.append(EPISODES[:2])
    with pytest.raises(CorruptData, match="got 2 of 5 episodes"):
        EpisodeStore.open(uri)
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* has been at it since"):
        EpisodeWriter.create(uri, header())
    store.close()
    with pytest.raises(InvalidInput, match="cut off; go on with it by --resume"):
        EpisodeWriter.create(uri, header())
    assert not read_header(uri).finished

    store = EpisodeWriter.create(uri, header(), resume=True)
    assert store.missing_shards() == [1, 2]
    with pytest.raises(InvalidInput, match="expected all 3 shards"):
        store.finish()
    store.append(EPISODES[2:4])
    store.append(EPISODES[4:])
    store.finish()
    assert content(tmp_path / "data") == content(tmp_path / "undisturbed")


def test_resuming_keeps_parts_and_cleans_what_a_crash_left(tmp_path: Path) -> None:
    write(str(tmp_path / "undisturbed"))
    uri = str(tmp_path / "data")
    store = EpisodeWriter.create(uri, header())
    store.append(EPISODES[:2])
    store.put_aside(EpisodeTable.of(EPISODES[3:4]))
    shards = tmp_path / "data" / "shards"
    (shards / ".00002.arrow.tmp").write_bytes(b"half")
    (tmp_path / "data" / ".dataset.json.tmp").write_bytes(b"{")
    (shards / "00000.arrow").write_bytes((shards / "00000.arrow").read_bytes()[:-100])
    with pytest.raises(CorruptData, match="got 2 of 5"):
        EpisodeStore.open(uri)

    store.close()
    store = EpisodeWriter.create(uri, header(), resume=True)
    assert store.missing_shards() == [0, 1, 2]
    assert [table.digests() for table, _ in store.aside(1)] == [[DIGESTS[3]]]
    assert sorted(path.name for path in shards.iterdir()) == [".00001.3.part", "00000.arrow"]
    for first in (0, 2, 4):
        store.append(EPISODES[first : first + 2])
    assert not list(shards.glob(".*"))
    store.finish()
    assert content(tmp_path / "data") == content(tmp_path / "undisturbed")


def fault(episode: int, treatment: Any = "cut") -> EpisodeFault:
    next_seed = 8 if treatment == "skipped" else None
    return EpisodeFault(
        episode=episode, seed=7, step=2, what="é", treatment=treatment, replaced_by=next_seed
    )


def test_faults_lie_beside_their_episodes_and_in_the_header(tmp_path: Path) -> None:
    plain = write(str(tmp_path / "plain"))
    assert plain.faults is None
    assert "faults" not in (tmp_path / "plain" / "dataset.json").read_text()
    store = EpisodeWriter.create(tmp_path / "data", header())
    store.append(EPISODES[:2], [fault(0, "skipped"), fault(0)])
    store.put_aside(EpisodeTable.of(EPISODES[3:4]), [fault(3)])
    store.close()
    store = EpisodeWriter.create(tmp_path / "data", header(), resume=True)
    ((table, faults),) = store.aside(1)
    assert (table.digests(), faults) == ([DIGESTS[3]], (fault(3),))
    store.append(EPISODES[4:])
    store.append(EPISODES[2:4], faults)
    found = store.finish().faults
    assert found is not None
    assert (found.cut, found.skipped, str(found)) == (2, 1, "2 cut, 1 skipped")
    assert found.each == (fault(0, "skipped"), fault(0), fault(3))
    finished = EpisodeStore.open(tmp_path / "data")
    finished.verify()
    assert finished.header.faults == found
    assert finished.header.checksum == plain.checksum


def test_no_more_faults_than_a_header_can_tell(tmp_path: Path) -> None:
    store = EpisodeWriter.create(tmp_path / "data", header())
    store.append(EPISODES[:2], [fault(0)] * 2)
    with pytest.raises(CorruptData, match=r"at most 100000 faults.* last at step 2 of episode 2: "):
        store.append(EPISODES[2:4], [fault(2)] * (MOST_FAULTS - 1))


def test_what_was_to_stop_at_a_fault_may_go_on_in_another_way(tmp_path: Path) -> None:
    skipping = header(config={"seed": 0, "noise": 0.5, "on_error": "skip"})
    EpisodeWriter.create(tmp_path / "data", header()).close()
    EpisodeWriter.create(tmp_path / "data", skipping, resume=True).close()
    assert read_header(tmp_path / "data") == skipping
    with pytest.raises(InvalidInput, match=r"others: on_error \(skip, now None\)"):
        EpisodeWriter.create(tmp_path / "data", header(), resume=True)


@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_kept_aside_twice_is_in_nobodys_way(tmp_path: Path, damaged: bool) -> None:
    write(str(tmp_path / "undisturbed"))
    uri = str(tmp_path / "data")
    store = EpisodeWriter.create(uri, header())
    store.put_aside(EpisodeTable.of(EPISODES[2:3]))
    part = tmp_path / "data" / "shards" / ".00001.2.part"
    if damaged:
        part.write_bytes(part.read_bytes()[:-100])
    store.close()
    store = EpisodeWriter.create(uri, header(), resume=True)
    assert len(store.aside(1)) == (not damaged)
    for _ in range(2):
        store.put_aside(EpisodeTable.of(EPISODES[2:3]))
    assert [table.digests() for table, _ in store.aside(1)] == [[DIGESTS[2]]]
    store.append(EPISODES[2:4])
    assert not part.exists()
    # Nor is what somebody else has removed.
    store.put_aside(EpisodeTable.of(EPISODES[4:]))
    next(part.parent.glob("*.part")).unlink()
    store.append(EPISODES[4:])
    store.append(EPISODES[:2])
    store.finish()
    assert content(tmp_path / "data") == content(tmp_path / "undisturbed")


def test_a_writer_that_dies_while_writing_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(descriptor: int) -> None:
        raise KeyboardInterrupt

    uri = str(tmp_path / "data")
    store = EpisodeWriter.create(uri, header())
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", die)
        # A process that is killed does not tidy up.
        patch.setattr("os.unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            store.append(EPISODES[:2])
    shards = tmp_path / "data" / "shards"
    (left,) = (path.name for path in shards.iterdir())
    assert left.startswith(".00000.arrow.")
    assert left.endswith(".tmp")
    with pytest.raises(CorruptData, match="got 0 of 5 episodes"):
        EpisodeStore.open(uri)
    store.close()
    assert EpisodeWriter.create(uri, header(), resume=True).missing_shards() == [0, 1, 2]
    assert list(shards.iterdir()) == []


def test_resuming_takes_the_same_options(tmp_path: Path) -> None:
    uri = str(tmp_path / "data")
    EpisodeWriter.create(uri, header()).close()
    changed = header(config={"seed": 1, "noise": 0.5}, versions={"numpy": "3"}, planned=6)
    with pytest.raises(InvalidInput, match=r"numpy \(2, now 3\), planned .*, seed \(0, now 1\)"):
        EpisodeWriter.create(uri, changed, resume=True)


def test_a_finished_dataset_is_not_overwritten(tmp_path: Path) -> None:
    finished = write(str(tmp_path / "data"))
    before = content(tmp_path / "data")
    with pytest.raises(InvalidInput, match="which is finished; choose another name"):
        EpisodeWriter.create(str(tmp_path / "data"), header())
    store = EpisodeWriter.create(str(tmp_path / "data"), header(), resume=True)
    assert store.missing_shards() == []
    assert store.finish() == finished
    store.abandon_if_empty()
    assert content(tmp_path / "data") == before


def test_abandoning_removes_only_what_the_store_made(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    EpisodeWriter.create(str(tmp_path), header()).abandon_if_empty()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    EpisodeWriter.create(str(tmp_path / "data"), header()).abandon_if_empty()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    store = EpisodeWriter.create(str(tmp_path / "data"), header())
    store.append(EPISODES[:2])
    store.abandon_if_empty()
    assert (tmp_path / "data" / "dataset.json").exists()


def test_whoever_comes_second_removes_nothing_of_the_first(tmp_path: Path) -> None:
    first = EpisodeWriter.create(str(tmp_path / "data"), header())
    with pytest.raises(Busy, match=r"write to the dataset .*data, but process"):
        EpisodeWriter.create(str(tmp_path / "data"), header(), resume=True)
    for shard in first.missing_shards():
        first.append([EPISODES[index] for index in first.header.shard_indices(shard)])
    first.finish()
    EpisodeStore.open(str(tmp_path / "data")).verify()


def test_whoever_resumes_an_empty_dataset_does_not_remove_it(tmp_path: Path) -> None:
    EpisodeWriter.create(str(tmp_path / "data"), header()).close()
    EpisodeWriter.create(str(tmp_path / "data"), header(), resume=True).abandon_if_empty()
    assert (tmp_path / "data" / "dataset.json").exists()


def flip_a_bit(file: Path, where: int) -> None:
    data = bytearray(file.read_bytes())
    data[where] ^= 1
    file.write_bytes(bytes(data))


def test_verify_names_the_altered_shard(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    store = EpisodeStore.open(str(tmp_path / "data"))
    file = tmp_path / "data" / "shards" / "00001.arrow"
    rewards = EPISODES[2].rewards.tobytes()
    flip_a_bit(file, file.read_bytes().index(rewards))
    with pytest.raises(CorruptData, match=r"shards/00001\.arrow of .*got an altered one"):
        store.verify()


def test_verify_finds_a_shard_of_other_whole_episodes(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    shards = tmp_path / "data" / "shards"
    shutil.copy(shards / "00000.arrow", shards / "00001.arrow")
    store = EpisodeStore(*_folder_and_header(tmp_path / "data"))
    with pytest.raises(CorruptData, match=r"shards/00001\.arrow"):
        store.verify()


def _folder_and_header(path: Path) -> tuple[Any, DatasetHeader]:
    from dynlearn.storage.folder import open_folder

    return open_folder(str(path)), read_header(str(path))


def test_verify_finds_an_altered_checksum(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    file = tmp_path / "data" / "dataset.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"checksum": "0" * 64}))
    with pytest.raises(CorruptData, match=r"checksum of all episodes in dataset\.json"):
        EpisodeStore.open(str(tmp_path / "data")).verify()


def test_verify_finds_every_flipped_bit_and_reading_survives_it(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    file = tmp_path / "data" / "shards" / "00000.arrow"
    size = file.stat().st_size
    store = EpisodeStore.open(str(tmp_path / "data"))
    for where in range(0, size, 23):
        flip_a_bit(file, where)
        with pytest.raises(CorruptData, match=r"00000\.arrow"):
            store.verify()
        with suppress(CorruptData):
            store.table()
        flip_a_bit(file, where)
    store.verify()


@pytest.mark.parametrize("cut", [0, 10, 2000])
def test_a_truncated_or_missing_shard_is_refused_on_opening(tmp_path: Path, cut: int) -> None:
    write(str(tmp_path / "data"))
    file = tmp_path / "data" / "shards" / "00001.arrow"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(CorruptData, match=rf"bytes in shards/00001\.arrow of .*, got {cut};"):
        EpisodeStore.open(str(tmp_path / "data"))
    file.unlink()
    with pytest.raises(CorruptData, match="got no such file"):
        EpisodeStore.open(str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ('{"version": 1', "Invalid JSON"),
        ('{"version": 2}', "version: expected 1, got 2"),
        ("[]", "expected a dataset's header"),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(CorruptData, match=message):
        EpisodeStore.open(str(tmp_path))


def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    fields = write(str(tmp_path)).model_dump(mode="json")
    (tmp_path / "dataset.json").write_text(json.dumps(fields | {"episodes": 4}))
    with pytest.raises(CorruptData, match="expected 3 shards of 5 episodes"):
        EpisodeStore.open(str(tmp_path))


def test_nan_and_misfits_do_not_enter(tmp_path: Path) -> None:
    store = EpisodeWriter.create(str(tmp_path / "data"), header())
    table = EpisodeTable.of(EPISODES[:2])
    table.actions[3, 1] = np.nan
    with pytest.raises(CorruptData, match="actions of episode 1, got nan in row 1"):
        store.append(table)
    with pytest.raises(InvalidInput, match="expected episodes 0 to 1, those of shard 0, got 1"):
        store.append(EPISODES[:1])
    wide = EpisodeTable(
        **(vars(EpisodeTable.of(EPISODES[:2])) | {"actions": np.zeros((5, 4), dtype=np.float32)})
    )
    with pytest.raises(CorruptData, match=r"actions .*\[3\].* as the dataset's spaces say"):
        store.append(wide)
    assert store.missing_shards() == [0, 1, 2]


def test_nan_that_entered_by_another_way_is_named(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    file = tmp_path / "data" / "shards" / "00000.arrow"
    file.write_bytes(
        file.read_bytes().replace(EPISODES[1].rewards.tobytes(), np.full(3, np.nan).tobytes())
    )
    message = r"shards/00000\.arrow of .*rewards of episode 1, got nan in row 0"
    with pytest.raises(CorruptData, match=message):
        EpisodeStore.open(str(tmp_path / "data")).table()


@pytest.mark.parametrize("indices", [[5], [-1], []])
def test_indices_outside_the_dataset_are_refused(tmp_path: Path, indices: list[int]) -> None:
    write(str(tmp_path / "data"))
    with pytest.raises(InvalidInput, match="expected episode indices from 0 to 4, got"):
        EpisodeStore.open(str(tmp_path / "data")).table(indices)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="expected a folder that can be") as caught:
        EpisodeWriter.create(str(tmp_path / "file" / "data"), header())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_write_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidInput, match="expected a folder that can be written to"):
        EpisodeWriter.create(str(tmp_path / "data"), header())


def test_an_unknown_filesystem_is_refused_without_telling_the_password() -> None:
    with pytest.raises(InvalidInput, match="expected a URI of a filesystem") as caught:
        EpisodeStore.open("ftp://user:secret@host/data?key=secret")
    assert "secret" not in str(caught.value)


def test_a_shard_is_plain_arrow_with_one_row_an_episode(tmp_path: Path) -> None:
    write(str(tmp_path / "data"))
    with pa.OSFile(str(tmp_path / "data" / "shards" / "00001.arrow")) as source:
        rows = pa.ipc.open_file(source).read_all().to_pylist()
    assert [row["index"] for row in rows] == [2, 3]
    assert rows[1]["seed"] is None
    np.testing.assert_array_equal(np.float32(rows[0]["actions"]), EPISODES[2].actions)
    assert rows[0]["terminated"] == EPISODES[2].terminated.tolist()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a bucket on a server that speaks the S3 protocol, with {} for what is in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&allow_bucket_creation=true"
    uri = f"s3://key:secret@datasets/{{}}?{options}"
    filesystem, _ = fs.FileSystem.from_uri(uri.format(""))
    filesystem.create_dir("datasets")
    yield uri
    server.stop()


def test_a_dataset_lives_in_s3_as_on_the_disk(bucket: str, tmp_path: Path) -> None:
    local = write(str(tmp_path / "data"))
    uri = bucket.format("folder/data")
    store = EpisodeWriter.create(uri, header())
    store.append(EPISODES[:2])
    store.put_aside(EpisodeTable.of(EPISODES[3:4]))
    with pytest.raises(CorruptData, match="got 2 of 5 episodes") as caught:
        EpisodeStore.open(uri)
    assert "secret" not in str(caught.value)
    store.close()
    store = EpisodeWriter.create(uri, header(), resume=True)
    assert store.missing_shards() == [1, 2]
    assert len(store.aside(1)) == 1
    store.append(EPISODES[2:4])
    store.append(EPISODES[4:])
    assert store.finish() == local
    assert list_datasets(bucket.format("folder")) == ["data"]

    filesystem, path = fs.FileSystem.from_uri(uri)
    listed = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = {info.path.removeprefix(f"{path}/"): info.path for info in listed if info.is_file}
    there = {name: filesystem.open_input_file(at).read() for name, at in files.items()}
    assert there == content(tmp_path / "data")
    store = EpisodeStore.open(uri)
    store.verify()
    assert store.table().digests() == DIGESTS
    with pytest.raises(NotFound, match="did you mean data"):
        EpisodeStore.open(bucket.format("folder/dota"))


def test_an_empty_dataset_in_s3_is_abandoned(bucket: str) -> None:
    EpisodeWriter.create(bucket.format("empty"), header()).abandon_if_empty()
    with pytest.raises(NotFound):
        EpisodeStore.open(bucket.format("empty"))


def test_a_server_that_refuses_is_one_line(bucket: str) -> None:
    uri = bucket.replace("datasets", "no-such-bucket").replace("creation=true", "creation=false")
    with pytest.raises(
        InvalidInput, match=r"got s3://no-such-bucket/data\?scheme=http\S*: "
    ) as caught:
        EpisodeWriter.create(uri.format("data"), header())
    assert "\n" not in str(caught.value)


def test_a_dataset_of_before_opens_as_it_was_written() -> None:
    """Written by dynlearn 0.1.0, before modules moved: six episodes of ObjectSlide in two files."""
    store = EpisodeStore.open(str(Path(__file__).parent / "written_before" / "slide"))
    store.verify()
    assert (store.header.episodes, store.header.steps) == (6, 180)
    first = next(store.episodes())
    assert first.seed == 2968811710
    np.testing.assert_array_equal(first.actions[:2], [[1], [1]])
    # Agent and object at rest; full action makes the agent half a metre a second faster.
    np.testing.assert_allclose(first.observations[0], [-4.891816, 0, -2.900732, 0], atol=1e-6)
    np.testing.assert_allclose(first.observations[1], [-4.841816, 0.5, -2.900732, 0], atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 7, 100])
def test_pieces_are_the_chosen_steps_in_order_and_bounded(tmp_path: Path, steps: int) -> None:
    write(str(tmp_path))
    store = EpisodeStore.open(str(tmp_path))
    whole = store.table([0, 2, 3, 4])
    before = before_each_step(whole.lengths)
    pieces = list(store.pieces([4, 0, 2, 3], steps))
    assert all(piece.steps <= steps or len(piece) > 1 for piece in pieces)
    assert max(piece.steps for piece in pieces) <= max(steps, 1)
    assert np.concatenate([piece.rewards for piece in pieces]).tolist() == whole.rewards.tolist()
    places = [piece.observations[before_each_step(piece.lengths)] for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(places), whole.observations[before])
    followed = [piece.observations[np.roll(before_each_step(piece.lengths), 1)] for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(followed), whole.observations[np.roll(before, 1)])
    assert {int(index) for piece in pieces for index in piece.indices} == {0, 2, 3, 4}


def test_bytes_that_changed_are_found_when_they_are_read(tmp_path: Path) -> None:
    """Numbers that are as good as others: only the header knows better."""
    write(str(tmp_path))
    file = tmp_path / "shards" / "00001.arrow"
    observations = EPISODES[3].observations.tobytes()
    assert observations in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(observations, bytes(len(observations))))
    store = EpisodeStore.open(str(tmp_path))
    store.table([0, 1, 4])
    for read in (
        lambda: store.table([2]),
        lambda: list(store.episodes()),
        lambda: list(store.pieces([2, 3], 10)),
    ):
        with pytest.raises(CorruptData, match=r"expected shards/00001\.arrow .* as it was written"):
            read()
