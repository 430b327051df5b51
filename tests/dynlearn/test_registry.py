import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def _write(content: str = "x") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(content)
        (folder / "figures").mkdir()

    return write


def test_versions_count_up_and_the_last_is_champion(registry: Registry) -> None:
    for number in range(1, 12):
        version = registry.publish("slide", _write(str(number)))
        assert (version.name, version.version) == ("slide", str(number))
        assert version.folder == registry.root / "slide" / str(number)
        assert (version.folder / "config.json").read_text() == str(number)
    assert registry.versions("slide") == [str(number) for number in range(1, 12)]
    assert registry.aliases("slide") == {"champion": "11"}
    assert registry.names() == ["slide"]
    assert version.folder.stat().st_mode & 0o777 == 0o755


def test_a_version_that_is_not_promoted_is_champion_only_where_there_is_none(
    registry: Registry,
) -> None:
    for promote, champion in ((False, "1"), (False, "1"), (True, "3"), (False, "3")):
        registry.publish("slide", _write(), promote)
        assert registry.resolve("slide").version == champion
    shutil.rmtree(registry.root / "slide" / "3")
    registry.publish("slide", _write(), False)
    assert registry.resolve("slide").version == "5"


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.names() == []
    assert registry.versions("slide") == []
    assert registry.aliases("slide") == {}
    with pytest.raises(NotFound, match="expected a model, got 'slide'; there are none yet"):
        registry.resolve("slide")


def test_a_reference_is_a_name_a_version_or_an_alias(registry: Registry) -> None:
    for _ in range(3):
        registry.publish("slide", _write())
    registry.set_alias("slide", "best", "1")
    registry.set_alias("slide", "champion", "2")
    found = {
        reference: registry.resolve(reference).version
        for reference in ("slide", "slide/3", "slide@best", "slide@champion")
    }
    assert found == {"slide": "2", "slide/3": "3", "slide@best": "1", "slide@champion": "2"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("slid", "expected a model, got 'slid'; did you mean slide\\?"),
        ("slide/2", "expected a version of model slide, got '2'; there is 1"),
        ("slide/01", "got '01'"),
        ("slide/", "got ''"),
        ("slide@champ", "expected an alias of model slide, got 'champ'; did you mean champion\\?"),
        ("", "expected a model, got ''"),
        (".", "got '.'"),
        ("../models/slide", "got '..'"),
        ("slide/../slide/1", "got '../slide/1'"),
        ("slide@../1/config.json", "expected a model, got 'slide@..'"),
        ("/slide", "got ''"),
        ("slide\0", "expected a model"),
    ],
)
def test_references_to_nothing(registry: Registry, reference: str, message: str) -> None:
    registry.publish("slide", _write())
    with pytest.raises(NotFound, match=message) as caught:
        registry.resolve(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "a/b", "/x", ".x", "a b", "x\n"])
def test_names_that_lead_elsewhere_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidInput, match="expected a model name"):
        registry.publish(name, _write())
    assert not registry.root.exists()
    registry.publish("slide", _write())
    with pytest.raises(InvalidInput, match="expected a model alias name"):
        registry.set_alias("slide", name, "1")
    with pytest.raises(NotFound):
        registry.set_alias(name, "best", "1")
    with pytest.raises(NotFound):
        registry.set_alias("slide", "best", name)


def test_an_alias_is_no_number(registry: Registry) -> None:
    registry.publish("slide", _write())
    with pytest.raises(InvalidInput, match="expected an alias that is no number, got '7'"):
        registry.set_alias("slide", "7", "1")


def test_an_alias_of_a_version_that_is_gone(registry: Registry) -> None:
    version = registry.publish("slide", _write())
    registry.publish("slide", _write())
    registry.set_alias("slide", "champion", "1")
    shutil.rmtree(version.folder)
    with pytest.raises(CorruptData, match="expected alias champion of model slide to name"):
        registry.resolve("slide")


def test_what_fails_leaves_no_version_behind(registry: Registry) -> None:
    def fail(folder: Path) -> None:
        (folder / "config.json").write_text("half")
        assert registry.versions("slide") == registry.names() == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.publish("slide", fail)
    assert registry.names() == []
    assert [path.name for path in (registry.root / "slide").iterdir()] == ["aliases"]
    assert registry.publish("slide", _write()).version == "1"


def test_what_a_crash_leaves_behind_is_no_version(registry: Registry) -> None:
    program = (
        "import os, pathlib, dynlearn.registry\n"
        "def crash(folder):\n"
        "    (folder / 'config.json').write_text('half')\n"
        "    os._exit(9)\n"
        f"dynlearn.registry.Registry(pathlib.Path({str(registry.root)!r})).publish('slide', crash)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert registry.names() == []
    assert list((registry.root / "slide").glob(".staging-*"))
    assert registry.publish("slide", _write()).version == "1"
    assert registry.versions("slide") == ["1"]
    left = {path.name for path in (registry.root / "slide").iterdir()}
    assert left == {"1", "aliases", "last_version"}
    assert [path.name for path in registry.resolve("slide").folder.glob(".*")] == []


def test_numbers_are_never_given_again(registry: Registry) -> None:
    for _ in range(3):
        newest = registry.publish("slide", _write())
    shutil.rmtree(newest.folder)
    assert registry.publish("slide", _write()).version == "4"
    for version in registry.versions("slide"):
        shutil.rmtree(registry.root / "slide" / version)
    assert registry.names() == []
    assert registry.publish("slide", _write()).version == "5"


def test_numbers_of_a_registry_of_before_are_not_given_again(registry: Registry) -> None:
    for _ in range(3):
        newest = registry.publish("slide", _write())
    (registry.root / "slide" / "last_version").unlink()
    assert registry.publish("slide", _write()).version == "4"
    # An alias remembers what is gone.
    (registry.root / "slide" / "last_version").unlink()
    shutil.rmtree(newest.folder.with_name("4"))
    assert registry.publish("slide", _write()).version == "5"
    (registry.root / "slide" / "last_version").write_bytes(b"\xffno number")
    assert registry.publish("slide", _write()).version == "6"


@pytest.mark.parametrize("kind", [str, Path])
def test_the_root_is_a_path_however_written(registry: Registry, kind: Callable[..., Any]) -> None:
    registry.publish("slide", _write())
    found = Registry(kind(registry.root))
    assert found.resolve("slide").folder == registry.root / "slide" / "1"
    found.set_alias("slide", "best", 1)
    assert found.aliases("slide")["best"] == "1"


def test_publishers_at_once_get_versions_of_their_own(registry: Registry) -> None:
    meet = threading.Barrier(8)

    def publish(number: int) -> tuple[str, str]:
        def write(folder: Path) -> None:
            (folder / "config.json").write_text(str(number))
            meet.wait()

        version = registry.publish("slide", write)
        return version.version, (version.folder / "config.json").read_text()

    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(publish, range(8)))
    assert sorted(version for version, _ in published) == [str(n) for n in range(1, 9)]
    assert [content for _, content in published] == [str(number) for number in range(8)]
    assert registry.aliases("slide")["champion"] in registry.versions("slide")


def test_a_version_appears_whole(registry: Registry) -> None:
    done = threading.Event()
    halves: list[str] = []

    def watch() -> None:
        while not done.is_set():
            for version in registry.versions("slide"):
                folder = registry.root / "slide" / version
                if not (folder / "last").exists():
                    halves.append(version)

    def write(folder: Path) -> None:
        for name in ("first", "last"):
            (folder / name).touch()
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(10):
        registry.publish("slide", write)
    done.set()
    watcher.join()
    assert halves == []


def test_an_alias_moves_in_one_step(registry: Registry) -> None:
    for _ in range(2):
        registry.publish("slide", _write())
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(registry.resolve("slide").version)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        registry.set_alias("slide", "champion", str(1 + number % 2))
    done.set()
    reader.join()
    assert seen <= {"1", "2"}


def test_other_files_are_no_models(registry: Registry) -> None:
    registry.publish("slide", _write())
    (registry.root / "notes.txt").touch()
    (registry.root / ".hidden" / "1").mkdir(parents=True)
    (registry.root / "empty").mkdir()
    (registry.root / "slide" / "draft").mkdir()
    assert registry.names() == ["slide"]
    assert registry.versions("slide") == ["1"]


def test_a_root_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="name another home with --home") as caught:
        Registry(tmp_path / "file").publish("slide", _write())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_model_folder_without_write_permission(registry: Registry) -> None:
    registry.publish("slide", _write())
    (registry.root / "slide").chmod(0o500)
    with pytest.raises(InvalidInput, match="name another home with --home"):
        registry.publish("slide", _write())
