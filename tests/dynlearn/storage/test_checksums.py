import hashlib
import json
import os
from pathlib import Path

import pytest

from dynlearn.errors import CorruptData
from dynlearn.storage.checksums import CHECKSUMS_FILE, verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reward").mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "reward/model.safetensors"):
        (tmp_path / name).write_text(f"of {name}")
    write_checksums(tmp_path)
    return tmp_path


def test_json_and_tensors_have_checksums(folder: Path) -> None:
    found = json.loads((folder / "checksums.json").read_text())
    assert list(found) == ["config.json", "model.safetensors", "reward/model.safetensors"]
    assert found["config.json"] == hashlib.sha256(b"of config.json").hexdigest()
    verify_checksums(folder)


def test_a_bit_that_flipped_is_seen(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CorruptData, match=r"model\.safetensors as it was published, got an altered"
    ):
        verify_checksums(folder)


def test_a_file_that_is_gone_is_seen(folder: Path) -> None:
    (folder / "reward" / "model.safetensors").unlink()
    (folder / "reward").rmdir()
    with pytest.raises(CorruptData, match=r"expected a file .*reward/model\.safetensors"):
        verify_checksums(folder)


def test_checksums_that_cannot_be_read(folder: Path) -> None:
    (folder / "checksums.json").write_text("[]")
    with pytest.raises(CorruptData, match=r"checksums\.json"):
        verify_checksums(folder)


def test_a_model_card_may_be_edited_and_checksums_may_be_absent(folder: Path) -> None:
    (folder / "README.md").write_text("more")
    verify_checksums(folder)
    (folder / "config.json").write_text("other")
    (folder / "checksums.json").unlink()
    verify_checksums(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", CHECKSUMS_FILE])
def test_more_than_any_file_of_a_model_is_not_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 2**40)
    with pytest.raises(CorruptData, match=rf"expected at most \d+ bytes, got \d+ in .*{name}"):
        verify_checksums(folder)
