import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dynlearn_services.ray_folder import ray_folder

_CLUSTER = """
import os, stat
from pathlib import Path
from dynlearn_services.ray_cluster import ray_cluster
with ray_cluster(1):
    import ray
    folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
    print(folder, oct(stat.S_IMODE(folder.stat().st_mode)))
"""
_KILLED = """
import os, signal
from dynlearn_services.ray_folder import ray_folder
with ray_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders are made, close to the root as sockets need it."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("dynlearn_services.ray_folder._LONGEST", 1000)
    return tmp_path


def test_a_cluster_leaves_nothing_that_others_could_read(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", _CLUSTER],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    folder, mode = result.stdout.split()
    assert mode == "0o700"
    assert not Path(folder).exists()
    assert not (tmp_path / ".ray").exists()


def test_a_folder_is_its_users_alone_and_gone_in_the_end() -> None:
    with ray_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "session").mkdir()
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(place: Path) -> None:
    script = f"import tempfile; tempfile.tempdir = {str(place)!r}\n"
    script += "from dynlearn_services import ray_folder as module; module._LONGEST = 1000\n"
    killed = subprocess.run(
        [sys.executable, "-c", script + _KILLED], capture_output=True, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert left.exists()
    with ray_folder() as first:
        assert not left.exists()
        with ray_folder():
            assert first.exists()


def test_what_could_not_be_removed_is_removed_by_the_next(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def remove_all_but_what_is_written_meanwhile(folder: Path, **options: bool) -> None:
        remove(folder, **options)
        (folder / "ray").mkdir(parents=True)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", remove_all_but_what_is_written_meanwhile)
        with ray_folder() as left:
            pass
    assert [path.name for path in left.iterdir() if path.is_dir()] == ["ray"]
    with ray_folder():
        assert not left.exists()


def test_a_folder_that_nobody_came_to_lock_is_removed(place: Path) -> None:
    old, new = place / "dynlearn-ray-old", place / "dynlearn-ray-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    with ray_folder():
        assert not old.exists()
    # Somebody may be about to lock it.
    assert new.exists()
