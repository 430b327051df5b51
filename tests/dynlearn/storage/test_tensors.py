import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlearn.errors import CorruptData, NotFound
from dynlearn.storage.tensors import load_state, load_tensors, save_state, save_tensors

TENSORS = {
    "float": torch.tensor([1.5, math.nan, -math.inf]),
    "double": torch.tensor([[1e-300]], dtype=torch.float64),
    "whole": torch.tensor([[1, 2], [3, 4]]),
    "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "strided": torch.arange(6.0).view(2, 3).T,
    "empty": torch.zeros(0, 2),
}
STATE = {"update": 3, "history": [{"nll": -1.5, "diverged": math.nan}], "name": "β"}


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    as_bytes = (tensor.contiguous().view(-1).view(torch.uint8) for tensor in (first, second))
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(*as_bytes)


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t", TENSORS)
    loaded = load_tensors(tmp_path / "t")
    assert loaded.keys() == TENSORS.keys()
    assert all(_same(loaded[name], TENSORS[name]) for name in TENSORS)


def test_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "checkpoint"
    save_state(path, TENSORS, STATE)
    tensors, state = load_state(path)
    assert all(_same(tensors[name], TENSORS[name]) for name in TENSORS)
    assert json.dumps(state) == json.dumps(STATE)


def test_equal_state_makes_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_state(tmp_path / name, TENSORS, STATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    save_state(path, TENSORS, STATE)
    return path


def test_a_checkpoint_cut_at_any_byte_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for keep in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:keep])
        with pytest.raises(CorruptData, match="delete it to start over") as caught:
            load_state(tmp_path / "cut")
        assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255), rest=st.binary(max_size=20))
def test_an_altered_checkpoint_is_refused_or_read_but_nothing_else(
    checkpoint: Path, tmp_path: Path, place: int, flip: int, rest: bytes
) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[place % len(content)] ^= flip
    (tmp_path / "altered").write_bytes(content + rest)
    with suppress(CorruptData):
        load_state(tmp_path / "altered")


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any").write_bytes(content)
    for read in (load_state, load_tensors):
        with pytest.raises(CorruptData) as caught:
            read(tmp_path / "any")
        assert "\n" not in str(caught.value)


def test_tensors_without_a_state_are_no_checkpoint(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t", TENSORS)
    with pytest.raises(CorruptData, match="expected a whole checkpoint"):
        load_state(tmp_path / "t")


def test_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"expected a file .*, got none"):
        load_tensors(tmp_path / "none")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_checkpoint_that_is_no_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "it")
    with pytest.raises(CorruptData, match="expected a"):
        load_state(tmp_path / "it")


@pytest.mark.timeout(20)
def test_more_than_any_model_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "it").touch()
    os.truncate(tmp_path / "it", 2**40)
    for load in (load_tensors, load_state):
        with pytest.raises(CorruptData, match="expected at most 17179869184 bytes"):
            load(tmp_path / "it")
