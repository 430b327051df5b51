"""Bad input through the real command line: one line, exit code 2, nothing half-written."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from dynlearn.config import TrainConfig
from dynlearn.config.parsing import flat_fields
from dynlearn.data.episodes import Episode
from dynlearn.data.header import DatasetHeader
from dynlearn.data.writer import EpisodeWriter
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.fit import model_spec
from dynlearn_services.cli.app import run
from dynlearn_services.cli.train import TRAIN_SECTIONS

OBSERVATIONS = ObservationSpace(observation=BoxSpace(low=(-5.0,) * 3, high=(5.0,) * 3))
ACTIONS = BoxSpace(low=(-1.0,), high=(1.0,))


def write_dataset(home: Path, name: str, episodes: int, finish: bool = True) -> None:
    header = DatasetHeader(
        environment="Pendulum-v1",
        versions={},
        observation_space=OBSERVATIONS,
        action_space=ACTIONS,
        policy="random",
        config={},
        planned=episodes,
        episodes_per_shard=episodes,
    )
    store = EpisodeWriter.create(str(home / "datasets" / name), header)
    if finish:
        store.append([random_episode(index) for index in range(episodes)])
        store.finish()


def random_episode(index: int, steps: int = 6) -> Episode:
    generator = np.random.default_rng(index)
    over = np.arange(steps) == steps - 1
    return Episode(
        index=index,
        seed=index,
        observations=generator.uniform(-1, 1, (steps + 1, 3)).astype(np.float32),
        actions=generator.uniform(-1, 1, (steps, 1)).astype(np.float32),
        rewards=np.zeros(steps),
        terminated=np.zeros(steps, dtype=bool),
        truncated=over,
        achieved_goals=None,
        desired_goals=None,
    )


def publish_model(home: Path, name: str) -> None:
    config = TrainConfig(dataset="d", model=name, members=2, hidden=(4,))
    model = DynamicsModel(model_spec(config, OBSERVATIONS, ACTIONS))
    Registry(home / "models").publish(name, model.save)


Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail with exit code 2 and one line; return the line."""

    def check(*arguments: str) -> str:
        code = run([*arguments, "--home", str(tmp_path)])
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err
        return captured.err

    return check


def test_an_unknown_command_names_the_nearest(fails: Fails) -> None:
    assert "collect" in fails("colect")


def test_an_unknown_flag_names_the_nearest(fails: Fails) -> None:
    assert "--episodes" in fails("collect", "--dataset", "d", "--episods", "3")


def test_an_unknown_environment_names_the_nearest(fails: Fails, tmp_path: Path) -> None:
    line = fails("collect", "--dataset", "d", "--env", "dynlearn/ObjectSlid-v1")
    assert "dynlearn/ObjectSlide-v1" in line
    assert not (tmp_path / "datasets" / "d").exists()


def test_an_environment_of_another_kind_is_refused(fails: Fails, tmp_path: Path) -> None:
    class Images(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)

    gymnasium.register("tests/Images-v0", Images, max_episode_steps=10)
    line = fails("collect", "--dataset", "d", "--policy", "random", "--env", "tests/Images-v0")
    assert "image" in line
    assert not (tmp_path / "datasets" / "d").exists()


def test_an_unknown_policy_names_the_known(fails: Fails) -> None:
    assert "scripted" in fails("collect", "--dataset", "d", "--policy", "scriptd")


def test_a_dataset_name_cannot_leave_the_home(fails: Fails) -> None:
    assert "dataset name" in fails("collect", "--dataset", "../d")


def test_training_on_a_dataset_that_is_not_there(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "slide", 3)
    line = fails("train", "--dataset", "slid", "--model", "m")
    assert "slide" in line
    assert not Registry(tmp_path / "models").names()


def test_training_on_an_unfinished_dataset(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "half", 3, finish=False)
    assert "--resume" in fails("train", "--dataset", "half", "--model", "m")


def test_training_on_too_few_episodes(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "two", 2)
    assert "collect more" in fails("train", "--dataset", "two", "--model", "m")
    assert not Registry(tmp_path / "models").names()


def test_training_on_an_altered_dataset(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", 20)
    (shard,) = (tmp_path / "datasets" / "d" / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-40])
    assert "shard" in fails("train", "--dataset", "d", "--model", "m")


def test_nan_in_a_dataset_is_refused_before_training(fails: Fails, tmp_path: Path) -> None:
    """The store refuses NaN when it is written; this file was tampered with afterwards."""
    write_dataset(tmp_path, "d", 20)
    (shard,) = (tmp_path / "datasets" / "d" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    first = np.float32(random_episode(0).observations[0, 0]).tobytes()
    at = content.index(first)
    content[at : at + 4] = np.float32(np.nan).tobytes()
    shard.write_bytes(content)
    assert "finite" in fails("train", "--dataset", "d", "--model", "m")
    assert not Registry(tmp_path / "models").names()


def test_training_on_columns_that_are_not_there(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", 20)
    line = fails("train", "--dataset", "d", "--model", "m", "--target-columns", "7")
    assert "columns 0 to 2" in line


def test_resuming_what_was_never_begun(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", 20)
    assert "without --resume" in fails("train", "--dataset", "d", "--model", "m", "--resume")


@pytest.mark.parametrize("objective", ["mse", "moment_matching", "student_t", "vbem"])
def test_an_objective_without_a_form_for_full_covariances(
    fails: Fails, tmp_path: Path, objective: str
) -> None:
    write_dataset(tmp_path, "d", 20)
    train = ["train", "--dataset", "d", "--model", "m", "--covariance", "full"]
    line = fails(*train, "--objective", objective)
    assert f"a diagonal covariance with {objective}, got full" in line
    assert not (tmp_path / "runs" / "m" / "checkpoint.safetensors").exists()


def test_more_elites_than_members(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", 20)
    line = fails("train", "--dataset", "d", "--model", "m", "--elites", "9")
    assert "at most 5 elites" in line


def test_an_option_that_would_do_nothing(fails: Fails, tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", 20)
    line = fails("train", "--dataset", "d", "--model", "m", "--beta", "0.3", "--objective", "mse")
    assert line.startswith("error: beta: ")
    assert "take beta_nll or trustable" in line


@pytest.mark.parametrize("command", ["evaluate", "serve", "plan"])
def test_an_unknown_model_names_the_nearest(fails: Fails, tmp_path: Path, command: str) -> None:
    publish_model(tmp_path, "slide")
    assert "slide" in fails(command, "--model", "slid")


def test_tokens_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tmp_path)]
    assert run(["tokens", "create", "planner", *home]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("dynlearn_")
    assert run(["tokens", "create", "boss", "--role", "admin", "--json", *home]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "admin"
    assert run(["tokens", "revoke", "boss", *home]) == 0
    capsys.readouterr()
    assert run(["tokens", "list", "--json", *home]) == 0
    assert json.loads(capsys.readouterr().out) == {"planner": {"role": "read"}}
    assert run(["tokens", "create", "king", "--role", "king", *home]) == 2


def test_a_model_of_another_environment_cannot_plan(fails: Fails, tmp_path: Path) -> None:
    publish_model(tmp_path, "pendulum")
    assert "expected 4 columns, got 3" in fails("plan", "--model", "pendulum")


def test_an_environment_without_a_task_cannot_be_planned(fails: Fails, tmp_path: Path) -> None:
    publish_model(tmp_path, "pendulum")
    line = fails("plan", "--env", "Pendulum-v1", "--model", "pendulum")
    assert "expected learned for Pendulum-v1" in line
    assert "--learn-reward" in line


def test_a_port_in_use(fails: Fails, tmp_path: Path) -> None:
    publish_model(tmp_path, "m")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in fails("serve", "--model", "m", "--port", str(port))


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    assert run(["plan", "--model", "m", "--url", url, "--home", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert url in captured.err


def test_a_tampered_model_is_refused(fails: Fails, tmp_path: Path) -> None:
    publish_model(tmp_path, "m")
    weights = tmp_path / "models" / "m" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert "model.safetensors" in fails("serve", "--model", "m", "--port", "0")


def test_a_home_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    code = run(["collect", "--dataset", "d", "--home", str(blocked / "home")])
    assert code == 2
    assert "--home" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_without_write_permission(tmp_path: Path, fails: Fails) -> None:
    tmp_path.chmod(0o500)
    assert "can be written to" in fails("collect", "--dataset", "d")


def test_the_dataset_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, "d", 4)
    home = ["--home", str(tmp_path)]
    for command, shown in [
        (["datasets", "list"], "d: Pendulum-v1, 4 episodes, 24 transitions"),
        (["datasets", "show", "d"], '"planned": 4'),
        (["datasets", "verify", "d"], "4 episodes are as they were written"),
    ]:
        assert run([*command, *home]) == 0
        assert shown in capsys.readouterr().out


def test_the_model_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_model(tmp_path, "m")
    publish_model(tmp_path, "m")
    home = ["--home", str(tmp_path)]
    assert run(["models", "alias", "m", "champion", "1", *home]) == 0
    assert run(["models", "list", *home]) == 0
    assert "m: versions 1, 2; champion = 1" in capsys.readouterr().out


def test_the_help_of_training_has_headings_and_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [*(f"{section}:" for section in TRAIN_SECTIONS.values()), "Options:"]
    shown = {word for line in lines for word in line.split() if line.startswith("  --")}
    assert {f"--{name.replace('_', '-')}" for name in flat_fields(TrainConfig)} < shown
    assert {"--config", "--home", "--json", "--help"} < shown


TINY = ["--members", "2", "--hidden", "4", "--max-updates", "20", "--validate-every", "10"]


@pytest.mark.parametrize(
    ("options", "head", "rows"),
    [
        (
            ["--covariance", "full"],
            "scale_tril",
            [
                "| objective | beta_nll, β = 0.5 |",
                "| covariance | full |",
                "| each member gives | a mean and the Cholesky factor of a full covariance |",
            ],
        ),
        (
            ["--objective", "trustable", "--mean-bound", "0.5", "--separate-networks"],
            "variance",
            [
                "| objective | trustable, fitted in kl, step 0.1, β = 0, "
                "kl bound of the mean 0.5, kl bound of the covariance 0.1 |",
                "| covariance | diagonal |",
                "| network | 2 members, 4, silu, once for the mean and once for the rest |",
            ],
        ),
        (
            ["--objective", "student_t"],
            "student_t",
            [
                "| objective | student_t |",
                "| each member gives | a Student's t for each column; rollouts and intervals are "
                "those of the Gaussian with its mean and variance |",
            ],
        ),
        (
            ["--objective", "mse", "--member-groups", "99"],
            "mean",
            [
                "| objective | mse |",
                "| each member gives | a mean; the variances are constants measured on validation "
                "data |",
            ],
        ),
    ],
)
def test_what_is_published_names_objective_covariance_and_head(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    head: str,
    rows: list[str],
) -> None:
    write_dataset(tmp_path, "d", 20)
    home = ["--home", str(tmp_path)]
    assert run(["train", "--dataset", "d", "--model", "m", *TINY, *options, *home]) == 0
    folder = tmp_path / "models" / "m" / "1"
    assert json.loads((folder / "config.json").read_text())["head"] == head
    card = (folder / "README.md").read_text().splitlines()
    assert set(rows) <= set(card)
    assert any(line.startswith("| inside the 90% ellipsoid of all columns |") for line in card)
    capsys.readouterr()
    assert run(["evaluate", "--model", "m", *home]) == 0
    assert "  inside the 90% ellipsoid: " in capsys.readouterr().out
    (evaluated,) = (tmp_path / "evaluations").iterdir()
    assert set(rows) <= set((evaluated / "README.md").read_text().splitlines())


@pytest.mark.parametrize(
    "flag", [("--seed", str(2**63)), ("--hidden", ""), ("--learning-rate", "inf")]
)
def test_values_that_cannot_be_worked_with(fails: Fails, flag: tuple[str, str]) -> None:
    assert flag[0] in fails("train", "--dataset", "d", "--model", "m", *flag)


@pytest.mark.parametrize("content", ["a: 2020-99-99", "a: " + "[" * 5000])
def test_yaml_that_python_cannot_hold(fails: Fails, tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    assert "--config" in fails("collect", "--config", str(file))


@pytest.mark.parametrize("blocked", ["runs", "models"])
def test_a_folder_of_the_home_that_is_a_file(fails: Fails, tmp_path: Path, blocked: str) -> None:
    write_dataset(tmp_path, "d", 20)
    (tmp_path / blocked).write_text("")
    assert "can be written to" in fails("train", "--dataset", "d", "--model", "m")


def test_training_that_diverged_leaves_the_name_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path, "d", 20)
    train = ["train", "--dataset", "d", "--model", "m", "--members", "1", "--hidden", "4"]
    train += ["--max-updates", "20", "--validate-every", "5", "--home", str(tmp_path)]
    assert run([*train, "--learning-rate", "1e30"]) == 1
    assert "lower the learning rate" in capsys.readouterr().err
    assert run(train) == 0


@pytest.mark.usefixtures("ray_session")
def test_resuming_a_finished_dataset_that_lost_a_file(
    fails: Fails, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dataset", "d", "--episodes", "4", "--workers", "1"]
    assert run(["collect", *options, "--home", str(tmp_path)]) == 0
    capsys.readouterr()
    (shard,) = (tmp_path / "datasets" / "d" / "shards").iterdir()
    shard.unlink()
    assert "00000.arrow" in fails("collect", *options, "--resume")


def test_one_broken_dataset_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken", "whole"):
        write_dataset(tmp_path, name, 4)
    (tmp_path / "datasets" / "broken" / "dataset.json").write_text("{")
    assert run(["datasets", "list", "--home", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "broken: expected" in shown
    assert "whole: Pendulum-v1, 4 episodes" in shown


def test_a_model_published_without_card_or_provenance(fails: Fails, tmp_path: Path) -> None:
    publish_model(tmp_path, "m")
    assert "README.md" in fails("models", "show", "m")
    assert "training.json" in fails("evaluate", "--model", "m")


def test_a_damaged_alias_can_be_mended(
    fails: Fails, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_model(tmp_path, "m")
    (tmp_path / "models" / "m" / "aliases" / "champion").write_bytes(os.urandom(200))
    assert "dynlearn models alias" in fails("models", "show", "m")
    assert run(["models", "alias", "m", "champion", "1", "--home", str(tmp_path)]) == 0
    assert run(["models", "list", "--home", str(tmp_path)]) == 0
    assert "champion = 1" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://[", "ftp://127.0.0.1", "nonsense"])
def test_an_address_that_is_none(fails: Fails, url: str) -> None:
    assert "expected an address" in fails("plan", "--model", "m", "--url", url)
