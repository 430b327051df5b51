"""What a model's folder holds, by way of the dynamics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynlearn.errors import CorruptData, NotFound
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.files import SPEC_FILE, WEIGHTS_FILE

MakeModel = Callable[..., DynamicsModel]


def test_the_same_model_makes_the_same_files(make_model: MakeModel, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_model().save(tmp_path / name)
        contents.append([(tmp_path / name / f).read_bytes() for f in (SPEC_FILE, WEIGHTS_FILE)])
    assert contents[0] == contents[1]


def test_there_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(NotFound, match=f"expected a file .*{SPEC_FILE}, got none"):
            DynamicsModel.load(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
@pytest.mark.parametrize("file", [SPEC_FILE, WEIGHTS_FILE])
def test_truncated_files_are_refused(
    make_model: MakeModel, tmp_path: Path, file: str, keep: int
) -> None:
    make_model().save(tmp_path)
    content = (tmp_path / file).read_bytes()
    # The last byte of the JSON is a newline that nobody would miss.
    (tmp_path / file).write_bytes(content[: keep - 1 if keep < 0 else keep])
    _check_refused(tmp_path, file)


def test_missing_weights_are_not_found(make_model: MakeModel, tmp_path: Path) -> None:
    make_model().save(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(NotFound):
        DynamicsModel.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("network.perceptrons.0.2.bias"),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update({"network.perceptrons.0.2.bias": torch.zeros(3, 1, 5)}),
        lambda tensors: tensors["network.perceptrons.0.2.weight"].fill_(torch.nan),
    ],
    ids=["missing", "extra", "other shape", "not finite"],
)
def test_altered_weights_are_refused(
    make_model: MakeModel, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    make_model().save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    _check_refused(tmp_path, WEIGHTS_FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"members": 4},
        {"members": 10**9},
        {"members": "three"},
        {"hidden": [8, 9]},
        {"hidden": [10**9, 10**9]},
        {"hidden": [0]},
        {"hidden": [-8, 8]},
        {"target_columns": [0, 1, 3]},
        {"target_columns": []},
        {"observation_columns": [0, 0]},
        {"observation_columns": [-1]},
        {"absolute_columns": [5]},
        {"activation": "sin"},
        {"head": "softplus"},
        {"head": "scale_tril"},
        {"head": "student_t", "prior_components": -1},
        {"head": "student_t", "prior_components": 10**9},
        {"separate_networks": True},
        {"unknown": 1},
        {"action_space": {"kind": "box", "low": [0, 0], "high": [1]}},
    ],
    ids=str,
)
def test_an_altered_spec_is_refused(
    make_model: MakeModel, tmp_path: Path, change: dict[str, Any]
) -> None:
    make_model().save(tmp_path)
    spec = json.loads((tmp_path / SPEC_FILE).read_text())
    (tmp_path / SPEC_FILE).write_text(json.dumps({**spec, **change}))
    _check_refused(tmp_path, SPEC_FILE)


def _check_refused(folder: Path, file: str) -> None:
    with pytest.raises(CorruptData) as caught:
        DynamicsModel.load(folder)
    message = str(caught.value)
    assert str(folder / file) in message
    assert "\n" not in message
    assert len(message) < 1000
