import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions
from dynlearn.errors import InvalidInput, Unavailable
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.fit import TrainedModel, fit, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress
from dynlearn_services.training.remote_group import RemoteGroup, _gpus_each, remote_groups

OBSERVATIONS = ObservationSpace(observation=BoxSpace(low=(-np.inf,) * 2, high=(np.inf,) * 2))
ACTIONS = BoxSpace(low=(-1.0,), high=(1.0,))


def _transitions(seed: int, rows: int = 200) -> Transitions:
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(rows, 2))
    action = rng.uniform(-1, 1, size=(rows, 1)).astype(np.float32)
    moved = 0.1 * np.sin(observation) + 0.05 * action + 0.01 * rng.normal(size=(rows, 2))
    return Transitions(observation, action, observation + moved, np.array([rows]))


def _config(**options: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "dataset": "d",
            "model": "m",
            "members": 3,
            "hidden": (8,),
            "batch_size": 32,
            "max_updates": 60,
            "validate_every": 20,
            "checkpoint_every": 25,
            "device": "cpu",
            **options,
        }
    )


def _train(config: TrainConfig, checkpoint: Path | None = None, **hooks: Any) -> TrainedModel:
    spec = model_spec(config, OBSERVATIONS, ACTIONS)
    trained = fit(config, spec, _transitions(0), _transitions(1), Hooks(checkpoint, **hooks))
    assert trained is not None
    return trained


def _same(first: TrainedModel, second: TrainedModel) -> bool:
    one, other = first.model.regressor.state_dict(), second.model.regressor.state_dict()
    return (
        first.history == second.history
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
    )


@pytest.mark.usefixtures("ray_session")
def test_members_split_over_workers_that_are_killed_end_as_the_ensemble_trained_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(objective="trustable", workers=2)
    made: list[RemoteGroup] = []
    init = RemoteGroup.__init__

    def remember(self: RemoteGroup, *arguments: Any) -> None:
        init(self, *arguments)
        made.append(self)

    monkeypatch.setattr(RemoteGroup, "__init__", remember)

    def kill(progress: Progress) -> None:
        # Between the checkpoints at 25 and 50.
        if progress.update == 40:
            os.kill(made[0].process(), signal.SIGKILL)

    with remote_groups(config) as make_group:
        apart = _train(config, tmp_path / "apart", on_progress=kill, make_group=make_group)
    whole = _train(config.model_copy(update={"workers": 1}), tmp_path / "whole")
    assert _same(whole, apart)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "apart").read_bytes()


@pytest.mark.usefixtures("ray_session")
def test_a_run_begun_in_workers_goes_on_here(tmp_path: Path) -> None:
    config = _config(workers=2)
    stop = iter([False, True])
    with remote_groups(config) as make_group:
        spec = model_spec(config, OBSERVATIONS, ACTIONS)
        ended = fit(
            config,
            spec,
            _transitions(0),
            _transitions(1),
            Hooks(tmp_path / "checkpoint", should_stop=lambda: next(stop), make_group=make_group),
        )
    assert ended is None
    here = config.model_copy(update={"workers": 1})
    assert _same(_train(here), _train(here, tmp_path / "checkpoint"))


@pytest.mark.usefixtures("ray_session")
def test_a_workers_error_is_the_callers() -> None:
    config = _config(objective="trustable", workers=2, members=1, memory_limit_gib=1e-9)
    with remote_groups(config) as make_group, pytest.raises(InvalidInput, match="snapshot"):
        _train(config, make_group=make_group)


@pytest.mark.usefixtures("ray_session")
def test_more_workers_than_the_cluster_has_cpus_are_refused() -> None:
    with pytest.raises(Unavailable, match="100 CPUs"), remote_groups(_config(workers=100)):
        pass


@pytest.mark.parametrize(
    ("workers", "device", "room", "share"),
    [
        (4, "auto", {"CPU": 8}, 0.0),
        (4, "cpu", {"CPU": 8, "GPU": 4}, 0.0),
        (2, "cuda", {"CPU": 8, "GPU": 4}, 1.0),
        (2, "cuda", {"CPU": 8, "GPU": 1}, 0.5),
        (5, "auto", {"CPU": 8, "GPU": 2}, 0.3333),
        (6, "auto", {"CPU": 8, "GPU": 1}, 0.1666),
    ],
)
def test_workers_share_the_gpus_of_the_cluster(
    workers: int, device: str, room: dict[str, float], share: float
) -> None:
    assert _gpus_each(_config(workers=workers, members=8, device=device), room) == share


@pytest.mark.parametrize(
    ("device", "room", "expected"),
    [
        ("cuda", {"CPU": 8.0}, "with a GPU, got none"),
        ("auto", {"CPU": 2.0, "GPU": 4.0}, "with 3 CPUs for 3 training workers, got 2; take fewer"),
    ],
)
def test_a_cluster_without_room_is_refused(
    device: str, room: dict[str, float], expected: str
) -> None:
    with pytest.raises(Unavailable, match=expected):
        _gpus_each(_config(workers=3, device=device), room)
