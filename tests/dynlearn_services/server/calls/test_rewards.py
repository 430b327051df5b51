from dataclasses import replace

import numpy as np
import pytest
import torch

from dynlearn.errors import InvalidInput
from dynlearn.task import find_task
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.calls.rewards import Judge, choose_judge, task_of
from dynlearn_services.server.models.loaded_model import LoadedModel

# Of as many columns as the models here, which is no reason to judge by it.
FIVE = replace(
    find_task("dynlearn/ObjectSlide-v1"),
    environment="Five-v0",
    observation_columns=("a", "b", "c", "d", "e"),
    read_context=lambda observation: np.zeros(2),
)
DENSE = FIVE.rewards["dense"]


@pytest.fixture
def load(make_model):
    def of(environment=None, **options):
        return LoadedModel("arm", "1", make_model(**options), environment=environment)

    return of


def test_rewards_are_of_the_models_own_environment_and_columns(load):
    assert task_of([FIVE], load("Five-v0")) is FIVE
    assert task_of([FIVE], load("CartPole-v1")) is None
    assert task_of([FIVE], load()) is None
    assert task_of([replace(FIVE, observation_columns=("a",))], load("Five-v0")) is None
    assert task_of([FIVE], load("Five-v0", targets=(0,))) is None


@pytest.mark.parametrize(
    ("own", "named"), [("Five-v0", None), ("Five-v0", "Five-v0"), (None, "Five-v0")]
)
def test_who_judges(load, own, named):
    parameters = RolloutParameters(reward="dense", environment=named)
    assert choose_judge([FIVE], load(own), parameters) == Judge(DENSE, 2)
    assert choose_judge([FIVE], load(own), RolloutParameters()) is None


@pytest.mark.parametrize(
    ("own", "named", "reward", "message"),
    [
        ("CartPole-v1", None, "dense", r"reward: expected a reward of CartPole-v1, .* none yet"),
        ("CartPole-v1", "Five-v0", "dense", "environment: expected CartPole-v1, .* leave it out"),
        (None, None, "dense", "environment: expected the environment whose reward is meant"),
        (None, "Six-v0", "dense", "reward: expected a reward of Six-v0"),
        ("Five-v0", None, "dens", "did you mean dense"),
        ("Five-v0", None, "learned", "train one with --learn-reward"),
    ],
)
def test_who_does_not(load, own, named, reward, message):
    parameters = RolloutParameters(reward=reward, environment=named)
    with pytest.raises(InvalidInput, match=message):
        choose_judge([FIVE], load(own), parameters)


def test_the_width_of_a_context():
    Judge(DENSE, 2).require_context(2)
    Judge(DENSE, None).require_context(5)
    with pytest.raises(InvalidInput, match="context: expected the goal, of 2 columns, got 5"):
        Judge(DENSE, 2).require_context(5)


def test_a_context_that_does_not_suit_is_named():
    observation, actions = torch.zeros(2, 5), torch.zeros(2, 3, 5, 1)
    Judge(DENSE, None).try_out(observation, actions, torch.zeros(2, 1))
    with pytest.raises(InvalidInput, match=r"context: expected .* goal, got shape \[2, 0\]"):
        Judge(DENSE, None).try_out(observation, actions, torch.zeros(2, 0))


def test_a_shortage_of_memory_is_no_fault_of_the_context():
    def greedy(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Judge(greedy, 1).try_out(torch.zeros(2, 5), torch.zeros(2, 3, 5, 1), torch.zeros(2, 1))
