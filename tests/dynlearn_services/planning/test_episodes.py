import torch
from torch import Tensor

from dynlearn.task import find_task
from dynlearn_envs.object_slide.truth import TrueSlide
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.planning.episodes import Playthrough, making, play


def push(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
    return torch.ones(len(observation), 1)


def played(episodes: int, seed: int) -> Playthrough:
    with making(OBJECT_SLIDE, episodes) as environments:
        return play(find_task(OBJECT_SLIDE), environments, push, seed)


def test_episodes_follow_from_the_seed_alone() -> None:
    first, again = (played(3, 5) for _ in range(2))
    assert torch.equal(first.observations, again.observations)
    more = played(4, 5)
    assert torch.equal(first.observations, more.observations[:3])
    assert not torch.equal(first.observations, played(3, 6).observations)


def test_what_was_played_is_what_the_physics_say() -> None:
    found = played(2, 0)
    assert found.lengths.tolist() == [30, 30]
    expected = TrueSlide().step(found.observations[:, 0], found.actions[:, 0], None, None)
    torch.testing.assert_close(found.observations[:, 1], expected)
    assert (found.returns <= 0).all()
    assert not found.frames
