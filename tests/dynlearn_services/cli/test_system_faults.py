"""What the system refuses a command: a line and an exit code, never a traceback."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dynlearn_services.cli.app import run

_MOST_BYTES = 10


def dynlearn(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dynlearn_services", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


def test_a_file_that_may_not_grow_is_one_line_and_leaves_no_part(tmp_path: Path) -> None:
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))

    result = dynlearn(
        "tokens", "create", "x", "--home", str(tmp_path), preexec_fn=bound, stdout=subprocess.PIPE
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: expected ")
    assert "File too large" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "tokens.json").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_standard_output_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = dynlearn("models", "list", "--home", str(tmp_path), stdout=full)
    assert result.returncode == 1
    assert result.stderr.startswith("error: expected room on the disk, got No space left")
    assert result.stderr.count("\n") == 1


def test_a_reader_who_leaves_is_told_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        result = dynlearn("models", "list", "--home", str(tmp_path), stdout=closed)
    assert result.returncode not in (0, 2)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "expected room on the disk, got No space left on device for /a/b"),
        (errno.EDQUOT, "expected room on the disk, got Disk quota exceeded for /a/b"),
        (errno.EIO, "expected files that can be read and written, got Input/output error for /a/b"),
        (errno.EMFILE, "expected files that can be read and written, got Too many open files"),
    ],
)
def test_the_system_is_quoted_with_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    line: str,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number), "/a/b")

    monkeypatch.setattr("dynlearn.registry.Registry.names", refuse)
    assert run(["models", "list", "--home", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {line}")
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_no_memory_left_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dynlearn.registry.Registry.names", refuse)
    assert run(["models", "list", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: expected enough memory")


def test_a_home_whose_name_is_not_utf8_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert run(["models", "list", "--home", home]) == 2
    assert "expected a home folder whose name is UTF-8" in capsys.readouterr().err
