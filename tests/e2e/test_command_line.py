"""The real commands, one process each, on tiny budgets: collect, train, evaluate, serve, plan."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynlearn.client import DynamicsClient
from dynlearn.models.dynamics import DynamicsModel

DYNLEARN = [sys.executable, "-m", "dynlearn_services"]
TINY_PLANNER = ["--horizon", "3", "--candidates", "8", "--elites", "2", "--iterations", "1"]


def dynlearn(home: Path, *arguments: str) -> dict[str, Any]:
    """Run a command that must succeed and return its JSON."""
    finished = subprocess.run(
        [*DYNLEARN, *arguments, "--home", str(home), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    content: dict[str, Any] = json.loads(finished.stdout)
    return content


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a collected dataset and a trained model."""
    home = tmp_path_factory.mktemp("home")
    config = home / "collect.yaml"
    config.write_text("episodes: 60\nworkers: 2\nseed: 4\n")
    collected = dynlearn(home, "collect", "--dataset", "slide", "--config", str(config))
    assert (collected["episodes"], collected["steps"]) == (60, 1800)
    tiny = [
        "--hidden",
        "16,16",
        "--members",
        "3",
        "--max-updates",
        "300",
        "--validate-every",
        "100",
    ]
    trained = dynlearn(home, "train", "--dataset", "slide", "--model", "slide", *tiny)
    assert (trained["version"], trained["episodes"]) == ("1", 6)
    return home


@contextmanager
def serving(home: Path, model: str = "slide", *options: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*DYNLEARN, "serve", "--model", model, *options, "--port", "0", "--home", str(home)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_published_model_has_its_card_and_figures(home: Path) -> None:
    folder = home / "models" / "slide" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "figures",
        "metrics.json",
        "model.safetensors",
        "training.json",
        "checksums.json",
    }
    for picture in (folder / "figures").iterdir():
        with Image.open(picture) as image:
            assert min(image.size) > 300
    assert any((home / "runs" / "slide" / "tensorboard").iterdir())


def test_evaluate_agrees_with_the_metrics_of_training(home: Path) -> None:
    evaluated = dynlearn(home, "evaluate", "--model", "slide/1")
    published = json.loads((home / "models" / "slide" / "1" / "metrics.json").read_text())
    assert evaluated["nll"] == pytest.approx(published["nll"], rel=1e-6)
    rounded = dynlearn(home, "evaluate", "--model", "slide/1", "--precision", "bfloat16")
    assert 0 < abs(rounded["nll"] - evaluated["nll"]) < 0.5
    assert rounded["rmse"] == pytest.approx(evaluated["rmse"], rel=0.1)
    card = (Path(rounded["folder"]) / "README.md").read_text()
    assert "| precision of prediction | bfloat16 |" in card
    assert (Path(evaluated["folder"]) / "figures" / "calibration.png").exists()


def test_served_predictions_are_the_models_own(home: Path) -> None:
    model = DynamicsModel.load(home / "models" / "slide" / "1")
    observation = np.array([[-3.0, 0.5, -2.5, 0.0], [-2.0, 0.0, 1.0, 2.0]], np.float32)
    action = np.array([[0.5], [-1.0]], np.float32)
    with serving(home) as url, DynamicsClient(url, model="slide") as client:
        answer = client.predict(observation, action)
    expected = model.predict(observation, action)
    np.testing.assert_allclose(answer.mean, expected.mean.numpy(), rtol=1e-6)
    np.testing.assert_allclose(answer.covariance, expected.covariance.numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("model", "precision"), [("slide", "float32"), ("full", "bfloat16")])
def test_plans_over_http_and_in_process_are_the_same(
    home: Path, model: str, precision: str
) -> None:
    if model == "full":
        tiny = ["--hidden", "16,16", "--members", "2", "--max-updates", "100"]
        tiny += ["--covariance", "full"]
        dynlearn(home, "train", "--dataset", "slide", "--model", "full", *tiny)
    options = ["--model", model, "--episodes", "2", "--particles", "2", *TINY_PLANNER]
    local = dynlearn(home, "plan", *options, "--precision", precision, "--no-pictures")
    with serving(home, model, "--precision", precision) as url:
        remote = dynlearn(home, "plan", *options, "--url", url)
    assert remote["returns"] == local["returns"]
    assert remote["version"] == "1"
    with Image.open(Path(remote["folder"]) / "episode.gif") as animation:
        assert animation.n_frames == 31
    assert (Path(remote["folder"]) / "imagined.png").exists()


def test_an_environment_without_a_task_is_planned_in_with_a_learned_reward(home: Path) -> None:
    collect = ["--dataset", "pendulum", "--env", "Pendulum-v1", "--policy", "random"]
    dynlearn(home, "collect", *collect, "--episodes", "30", "--max-steps", "50")
    tiny = ["--hidden", "32,32", "--members", "2", "--max-updates", "600", "--learn-reward"]
    dynlearn(home, "train", "--dataset", "pendulum", "--model", "pendulum", *tiny)
    evaluated = dynlearn(home, "evaluate", "--model", "pendulum")
    assert evaluated["reward_rmse"] < 0.5 * evaluated["rmse_of_mean_reward"]
    options = ["--env", "Pendulum-v1", "--model", "pendulum", "--reward", "learned"]
    played = dynlearn(home, "plan", *options, "--episodes", "2", *TINY_PLANNER, "--no-pictures")
    assert len(played["returns"]) == 2
    assert played["success_share"] is None
    with serving(home, "pendulum") as url, DynamicsClient(url, model="pendulum") as client:
        starts, actions = np.zeros((1, 3)), np.zeros((1, 2, 4, 1))
        judged = client.rollout(starts, actions, reward="learned")
        assert judged.returns.shape == (1, 2)
        one = client.predict(starts, actions[:, 0, 0], outputs=["reward_mean"])
        assert one.reward_mean.shape == (1,)


def test_training_killed_at_any_step_and_resumed_ends_with_the_same_bits(
    home: Path, tmp_path: Path
) -> None:
    """SIGKILL strikes at a random step after the first validation."""
    options = ["--dataset", "slide", "--hidden", "16,16", "--members", "2"]
    options += ["--max-updates", "2500", "--validate-every", "70", "--checkpoint-every", "30"]
    whole = dynlearn(home, "train", *options, "--model", "whole")
    killed = [*DYNLEARN, "train", *options, "--model", "killed", "--home", str(home)]
    checkpoint = home / "runs" / "killed" / "checkpoint.safetensors"
    process = subprocess.Popen(killed, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        process.stderr.readline()
        assert checkpoint.exists()
        time.sleep(random.uniform(0, 0.7))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (home / "models" / "killed").exists()
    resumed = dynlearn(home, "train", *options, "--model", "killed", "--resume")
    assert resumed["nll"] == whole["nll"]
    weights = [home / "models" / name / "1" / "model.safetensors" for name in ("whole", "killed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not checkpoint.exists()


@pytest.mark.parametrize("fit", ["train", "reward"])
def test_training_stopped_by_ctrl_c_says_how_to_go_on(home: Path, fit: str) -> None:
    options = ["--dataset", "slide", "--model", f"stopped-{fit}", "--hidden", "16"]
    options += ["--members", "2", "--max-updates", "1000000", "--validate-every", "50"]
    options += ["--learn-reward"] if fit == "reward" else []
    process = subprocess.Popen(
        [*DYNLEARN, "train", *options, "--home", str(home)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(f"{fit}: ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    name = "checkpoint-reward" if fit == "reward" else "checkpoint"
    saved = home / "runs" / f"stopped-{fit}" / f"{name}.safetensors"
    assert saved.exists()
    assert errors.splitlines()[-1].endswith(f"--resume` and the same options ({saved})")
