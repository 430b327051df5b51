import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dynlearn.errors import CorruptData, NotFound
from dynlearn.storage.files import read_bytes, read_json, write_bytes, write_json


class Point(BaseModel):
    x: int


def test_json_is_checked_against_its_kind(tmp_path: Path) -> None:
    write_json(tmp_path / "p", Point(x=3))
    assert read_json(tmp_path / "p", Point) == Point(x=3)
    write_json(tmp_path / "p", {"x": "three"})
    with pytest.raises(
        CorruptData, match=r"expected Point in .*p, got a fault: x: expected .*integer"
    ):
        read_json(tmp_path / "p", Point)


def test_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"expected a file .*, got none"):
        read_json(tmp_path / "none", Point)


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any").write_bytes(content)
    with pytest.raises(CorruptData):
        read_json(tmp_path / "any", Point)


def test_json_has_no_infinities(tmp_path: Path) -> None:
    write_json(tmp_path / "p", {"x": 1})
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "p", {"x": bad})
    assert read_json(tmp_path / "p", Point) == Point(x=1)


def test_json_beyond_any_use_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "p").touch()
    os.truncate(tmp_path / "p", 2**30)
    with pytest.raises(CorruptData, match="expected at most 67108864 bytes"):
        read_json(tmp_path / "p", Point)


def test_what_might_never_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe):
        with pytest.raises(CorruptData, match=f"expected a plain file, got {path}, which is none"):
            read_bytes(path, 10)
        with pytest.raises(CorruptData, match="expected a plain file"):
            read_json(path, Point)
    with pytest.raises(CorruptData, match="which is a folder"):
        read_bytes(tmp_path, 10)


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "three"
    path.write_bytes(b"abc")
    assert read_bytes(path, 10) == read_bytes(path, 3) == b"abc"
    with pytest.raises(CorruptData, match=r"expected at most 2 bytes, got 3 in .*three"):
        read_bytes(path, 2)


def test_what_has_more_than_it_says_is_read_within_its_limit_too() -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert b"VmRSS" in read_bytes(path, 100_000)
    with pytest.raises(CorruptData, match="expected at most 9 bytes, got more in /proc/self/sta"):
        read_bytes(path, 9)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([digit]) * 200_000 for digit in range(4)]
    write_bytes(path, contents[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents * 5:
        write_bytes(path, content)
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


_WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from dynlearn.storage import files
files.os.fsync = lambda _: os.kill(os.getpid(), 9)
files.write_bytes(Path(sys.argv[1]), b"half")
"""


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run[1].safetensors"
    killed = subprocess.run([sys.executable, "-c", _WRITE_AND_DIE, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    # As long as it is young, its writer may be at work.
    write_bytes(path, b"whole")
    assert left.exists()
    other = tmp_path / ".run[1].json.x.tmp"
    for file in (left, other):
        file.touch()
        os.utime(file, (0, 0))
    write_bytes(path, b"new")
    assert sorted(tmp_path.iterdir()) == [other, path]
