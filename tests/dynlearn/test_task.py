from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynlearn.errors import InvalidInput, NotFound
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.task import (
    Columns,
    Task,
    bare_task,
    describe_columns,
    find_task,
    installed_tasks,
)

PLUGIN = """
import numpy as np
from dynlearn.task import Task

TASK = Task(
    name="point",
    environment="elsewhere/Point-v0",
    observation_columns=("x",),
    rewards={"sparse": lambda o, a, n, c: -((n - c).abs()[..., 0] > 0.1).float()},
    success=lambda o, a, n, c: (n - c).abs()[..., 0] <= 0.1,
    read_context=lambda observation: np.asarray(observation["desired_goal"]),
)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install, as far as importlib can see, another package with a task."""
    (tmp_path / "dynlearn_point_plugin.py").write_text(PLUGIN)
    info = tmp_path / "dynlearn_point_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: dynlearn-point-plugin\nVersion: 1\n"
    )
    (info / "entry_points.txt").write_text("[dynlearn.tasks]\npoint = dynlearn_point_plugin:TASK\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def columns(size: int, names: tuple[str, ...] = ()) -> ObservationSpace:
    box = BoxSpace(low=(0,) * size, high=(1,) * size, columns=names)
    return ObservationSpace(observation=box)


def _task() -> Task:
    def distance(
        observation: torch.Tensor,
        action: torch.Tensor,
        next_observation: torch.Tensor,
        context: torch.Tensor,
    ) -> torch.Tensor:
        return -(next_observation - context).norm(dim=-1)

    return Task(
        name="point",
        environment="elsewhere/Point-v0",
        observation_columns=("x",),
        rewards={"dense": distance, "twice": lambda *parts: 2 * distance(*parts)},
        success=lambda *parts: distance(*parts) > -0.1,
        read_context=lambda observation: np.asarray(observation),
    )


def test_an_environment_without_a_task() -> None:
    task = bare_task("elsewhere/Walk-v0", columns(2))
    assert task.column_labels == ("observation[0]", "observation[1]")
    assert (task.rewards, task.success) == ({}, None)
    assert task.read_context(np.ones(2)).shape == (0,)
    observation = {"observation": np.ones(2), "desired_goal": np.array([3.0])}
    np.testing.assert_array_equal(task.read_context(observation), [3.0])


def test_rewards_by_name_and_the_first_by_default() -> None:
    task = _task()
    assert task.reward() is task.rewards["dense"]
    assert task.reward("twice") is task.rewards["twice"]
    with pytest.raises(InvalidInput, match="did you mean dense\\?"):
        task.reward("dens")


@pytest.mark.usefixtures("plugin")
def test_any_installed_package_adds_a_task() -> None:
    task = find_task("elsewhere/Point-v0")
    assert task.name == "point"
    assert installed_tasks()["elsewhere/Point-v0"] is task
    point, goal = torch.zeros(2, 1), torch.tensor([[0.05], [1.0]])
    assert task.reward()(point, point, point, goal).tolist() == [0, -1]


def test_an_environment_without_a_task_names_the_closest() -> None:
    known = next(iter(installed_tasks()))
    with pytest.raises(NotFound, match=f"did you mean {known}") as caught:
        find_task(known[:-1])
    assert "\n" not in str(caught.value)


def test_column_labels_carry_units_where_they_are_known() -> None:
    assert _task().column_labels == ("x",)
    assert replace(_task(), units=("m",)).column_labels == ("x (m)",)


@pytest.mark.usefixtures("plugin")
def test_columns_are_described_by_their_task_where_it_fits() -> None:
    assert describe_columns("elsewhere/Point-v0", columns(1)) == Columns(("x",))
    assert describe_columns("elsewhere/Point-v0", columns(2)).labels == (
        "observation[0]",
        "observation[1]",
    )
    assert describe_columns("nowhere", columns(1)) == Columns(("observation[0]",), focus=())
    named = columns(2, ("arm.joint[0]", "grip=1"))
    assert describe_columns("nowhere", named).labels == ("arm.joint[0]", "grip=1")
    slide = describe_columns("dynlearn/ObjectSlide-v1", columns(4))
    assert (len(slide.labels), slide.focus) == (4, (2,))


def test_how_wide_a_context_is() -> None:
    task = bare_task("elsewhere/Point-v0", columns(3))
    goal = BoxSpace(low=(0,) * 2, high=(1,) * 2)
    assert task.context_size(columns(3)) == 0
    assert task.context_size(ObservationSpace(observation=goal, goal=goal)) == 2
    of_columns = replace(task, read_context=lambda observation: observation[1:])
    assert of_columns.context_size(columns(3)) == 2
    for more in (lambda observation: observation["camera"], lambda observation: np.zeros((2, 2))):
        assert replace(task, read_context=more).context_size(columns(3)) is None
