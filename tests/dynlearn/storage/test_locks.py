"""Locks between processes, and leases on a store that knows no locks."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from dynlearn.errors import Busy, InvalidInput
from dynlearn.storage import locks
from dynlearn.storage.folder import Folder, open_folder
from dynlearn.storage.locks import LOCK_FILE, lock_folder, one_writer

_HOLD = """
import sys, time
from pathlib import Path
from dynlearn.storage.locks import one_writer
with one_writer(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""


def held_by_another_process(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_writer_is_told_who_the_first_is_and_inherits_when_it_is_killed(
    tmp_path: Path,
) -> None:
    file = tmp_path / LOCK_FILE
    with held_by_another_process(file) as holder:
        with (
            pytest.raises(Busy, match=rf"write to it, but process {holder.pid} on .* since 20"),
            one_writer(file, "it"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    assert file.exists()
    with one_writer(file, "it"):
        assert f'"process":{os.getpid()},' in file.read_text()
    assert not file.exists()


def test_who_waits_gets_it_when_it_is_free_and_nobody_is_ever_inside_together(
    tmp_path: Path,
) -> None:
    file, inside, most = tmp_path / "counter.lock", [0], [0]

    def count() -> None:
        for _ in range(20):
            with one_writer(file, "the counter", wait=20):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_lock_that_cannot_be_written_is_one_line() -> None:
    with (
        pytest.raises(InvalidInput, match="expected a folder that can be written to, got"),
        one_writer(Path("/dev/null") / LOCK_FILE, "it"),
    ):
        pass


class Store:
    """A folder that is taken for one on a store, where nothing is locked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(locks, "STALE_AFTER", 0.3)
        monkeypatch.setattr(locks, "_RENEW_EVERY", 0.05)
        monkeypatch.setattr(locks, "_SETTLE", 0.05)
        monkeypatch.setattr(locks, "_LOOK_EVERY", 0.02)
        self.lease = folder / LOCK_FILE
        root = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.folder = Folder(root, "", "s3://bucket/data")

    def left_by(self, host: str, process: int) -> None:
        self.lease.write_text(
            f'{{"id": "other", "process": {process}, "host": "{host}", "since": "Monday"}}'
        )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path, monkeypatch)


def test_a_lease_is_seen_by_others_and_gone_at_the_end(store: Store) -> None:
    first = lock_folder(store.folder, "the data")
    with pytest.raises(Busy, match=f"write to the data, but process {os.getpid()} on "):
        lock_folder(store.folder, "the data")
    first.require()
    first.release()
    first.release()
    assert not store.lease.exists()
    lock_folder(store.folder, "the data").release()


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_a_lease_without_a_sign_of_life_is_taken_over(store: Store, host: str | None) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store.left_by(host or os.uname().nodename, dead.pid)
    lock = lock_folder(store.folder, "the data")
    lock.require()
    lock.release()


def test_who_lost_the_lease_does_not_write(store: Store) -> None:
    first = lock_folder(store.folder, "the data")
    store.left_by("elsewhere", 7)
    with pytest.raises(Busy, match="process 7 on elsewhere has been at it since Monday"):
        first.require()
    first.release()
    assert store.lease.exists()


def test_of_two_that_see_no_lease_one_goes_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_rival(write: Callable[..., None]) -> Callable[..., None]:
        def late(self: Folder, file: str, content: bytes) -> None:
            write(self, file, content)
            store.left_by("elsewhere", 7)

        return late

    monkeypatch.setattr(Folder, "write", with_a_rival(Folder.write))
    with pytest.raises(Busy, match="process 7 on elsewhere"):
        lock_folder(store.folder, "the data")


def test_a_local_folder_is_locked_by_the_operating_system(tmp_path: Path) -> None:
    lock = lock_folder(open_folder(str(tmp_path)), "the data")
    with (
        pytest.raises(Busy),
        one_writer(tmp_path / LOCK_FILE, "the data"),
    ):
        pass
    lock.release()
    assert list(tmp_path.iterdir()) == []
