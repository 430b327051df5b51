import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynlearn.errors import CorruptData, NotFound
from dynlearn.models.published import load_published
from dynlearn.storage.tensors import load_tensors

# Published by dynlearn 0.1.0 before there were regressors: dynamics of a full covariance, and a
# reward that was a model of dynamics of 2·O + G + 1 columns.
BEFORE = Path(__file__).parent / "published_before"
VERSION = BEFORE / "arm" / "1"


@pytest.fixture
def recorded() -> dict[str, Any]:
    return json.loads((BEFORE / "predictions.json").read_text())


def _check(folder: Path, recorded: dict[str, Any]) -> None:
    model, reward = load_published(folder)
    observation, action, goal = (
        np.array(recorded[name], np.float32) for name in ("observation", "action", "goal")
    )
    prediction = model.predict(observation, action)
    sample, member = model.sample(observation, action, seed=3)
    assert reward is not None
    parts = (torch.from_numpy(part) for part in (observation, action))
    found = {
        "mean": prediction.mean,
        "covariance": prediction.covariance,
        "epistemic": prediction.epistemic,
        "sample": sample,
        "reward": reward(*parts, prediction.mean, torch.from_numpy(goal)),
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, recorded[name], rtol=0, atol=1e-6, err_msg=name)
    assert member.tolist() == recorded["sample_member"]


def test_what_was_published_before_predicts_as_it_did(recorded: dict[str, Any]) -> None:
    _check(VERSION, recorded)


def test_it_can_be_published_again(recorded: dict[str, Any], tmp_path: Path) -> None:
    model, reward = load_published(VERSION)
    assert reward is not None
    model.save(tmp_path)
    reward.save(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == (VERSION / "config.json").read_bytes()
    for file in ("model.safetensors", "reward/model.safetensors"):
        saved, before = load_tensors(tmp_path / file), load_tensors(VERSION / file)
        assert not saved.pop("least_std").any()
        assert saved.keys() == before.keys()
        assert all(torch.equal(saved[name], before[name]) for name in before), file
    spec = json.loads((tmp_path / "reward" / "config.json").read_text())
    # Twice four observation columns, one of the goal and one of the action.
    assert (spec["inputs"], spec["targets"], spec["members"]) == (10, 1, 1)
    _check(tmp_path, recorded)


def test_a_version_without_a_reward_has_none(tmp_path: Path) -> None:
    load_published(VERSION).dynamics.save(tmp_path)
    assert load_published(tmp_path).reward is None


@pytest.mark.parametrize("file", ["config.json", "reward/model.safetensors"])
def test_an_altered_file_is_refused(tmp_path: Path, file: str) -> None:
    shutil.copytree(VERSION, tmp_path / "1")
    with (tmp_path / "1" / file).open("ab") as altered:
        altered.write(b" ")
    with pytest.raises(CorruptData, match="as it was published, got an altered file"):
        load_published(tmp_path / "1")


def test_there_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="got none"):
        load_published(tmp_path)
