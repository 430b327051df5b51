from dataclasses import replace

import pytest
import torch

from dynlearn.errors import InvalidInput
from dynlearn.task import find_task
from dynlearn_services.server.calls.rewards import find_reward, known_rewards, try_reward

SLIDE = find_task("dynlearn/ObjectSlide-v1")


def test_a_reward_of_several_tasks_needs_the_environment():
    twin = replace(SLIDE, environment="Twin-v0")
    with pytest.raises(InvalidInput, match=r"several tasks .* dynlearn/ObjectSlide-v1, Twin-v0"):
        find_reward((SLIDE, twin), "dense", None, 4)
    assert find_reward((SLIDE, twin), "dense", "Twin-v0", 4) is SLIDE.rewards["dense"]


def test_which_rewards_are_known(make_model):
    # Of five columns, where the task has four.
    assert known_rewards((SLIDE,), make_model().spec) == {}
    five = replace(SLIDE, observation_columns=("a", "b", "c", "d", "e"))
    assert known_rewards((five,), make_model().spec) == {five.environment: tuple(five.rewards)}
    assert known_rewards((five,), make_model(targets=(0,)).spec) == {}


def test_a_context_that_does_not_suit_is_named():
    observation, actions = torch.zeros(2, 4), torch.zeros(2, 3, 5, 1)
    try_reward(SLIDE.rewards["dense"], observation, actions, torch.zeros(2, 1))
    with pytest.raises(InvalidInput, match=r"context: expected .* goal, got shape \[2, 0\]"):
        try_reward(SLIDE.rewards["dense"], observation, actions, torch.zeros(2, 0))
