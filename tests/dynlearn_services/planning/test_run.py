from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import dynlearn_services.planning.episodes as episodes
from dynlearn.config import PlanConfig, TrainConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.models.spec import ModelSpec
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.provenance import ENVIRONMENT_KWARGS, ENVIRONMENT_SEEDS, write_training
from dynlearn_envs.environments import Environment, describe_spaces
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.demo import play_random, play_truth
from dynlearn_services.home import Home
from dynlearn_services.planning.episodes import making
from dynlearn_services.planning.run import run_plan

PLAN = PlanConfig(model="none", env=OBJECT_SLIDE, episodes=20, reward="smooth", seed=0)


@pytest.fixture
def slide_home(tmp_path: Path) -> Path:
    """A home with an untrained model of ObjectSlide."""
    with making(OBJECT_SLIDE, 1) as (environment,):
        observation_space, action_space = describe_spaces(environment)
    every = tuple(range(4))
    spec = ModelSpec(
        observation_space=observation_space,
        action_space=action_space,
        observation_columns=every,
        target_columns=every,
        members=2,
        hidden=(4,),
    )
    Registry(tmp_path / "models").publish("slide", DynamicsModel(spec).save)
    return tmp_path


def test_the_planner_solves_the_environment_on_the_true_dynamics() -> None:
    assert play_truth(PLAN).successes.mean() >= 0.77


def test_random_actions_do_not() -> None:
    assert play_random(PLAN).successes.mean() <= 0.2


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_every_named_reward_can_be_planned_for(reward: str) -> None:
    few = PLAN.model_copy(update={"reward": reward, "episodes": 2, "candidates": 16, "elites": 4})
    assert play_truth(few).returns.shape == (2,)


def test_no_environment_is_made_only_to_be_asked(
    slide_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = episodes.make_environment

    def counting(env_id: str, **options: Any) -> Environment:
        made.append(env_id)
        return make(env_id, **options)

    monkeypatch.setattr(episodes, "make_environment", counting)
    plan = PLAN.model_copy(
        update={"model": "slide", "episodes": 3, "candidates": 8, "elites": 2, "iterations": 1}
    )
    assert run_plan(plan, Home(slide_home), None).returns.shape == (3,)
    assert made == [OBJECT_SLIDE] * 3


class Cart(gymnasium.Env[Any, Any]):
    """A cart on a line, pushed with a strength that it is made with; it has no last step."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(np.float64(-0.4), np.float64(0.4), (1,), np.float64)

    def __init__(self, strength: float = 1.0):
        self._strength, self._place = strength, 0.0

    seeds: ClassVar[list[int | None]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._place = 0.0
        self.seeds.append(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self._place += self._strength * float(action[0])
        info = {"is_success": True, "strength": self._strength}
        return np.array([self._place], np.float32), self._strength, False, False, info


@pytest.fixture
def cart_home(tmp_path: Path) -> Iterator[Path]:
    """A home with a model of the cart, whose data were made with a strength of 2."""
    gymnasium.register("Cart-v0", entry_point=Cart)
    space = ObservationSpace(observation=BoxSpace(low=(-np.inf,), high=(np.inf,)))
    spec = ModelSpec(
        observation_space=space,
        # As data have it whose actions were kept in another dtype.
        action_space=BoxSpace(low=(float(np.float32(-0.4)),), high=(float(np.float32(0.4)),)),
        observation_columns=(0,),
        target_columns=(0,),
        members=2,
        hidden=(4,),
    )

    def write(folder: Path) -> None:
        model = DynamicsModel(spec)
        model.save(folder)
        LearnedReward(_regressor(), 1, 1).save(folder)
        made: dict[str, Any] = {"environment": "Cart-v0", ENVIRONMENT_KWARGS: {"strength": 2.0}}
        made[ENVIRONMENT_SEEDS] = [3, 5]
        write_training(folder, TrainConfig(dataset="d", model="cart"), made, "test", [])

    def _regressor() -> EnsembleRegressor:
        return EnsembleRegressor(reward_spec(3, (4,), "tanh"))

    Registry(tmp_path / "models").publish("cart", write)
    yield tmp_path
    del gymnasium.registry["Cart-v0"]


CART = PlanConfig(
    model="cart", env="Cart-v0", episodes=2, candidates=8, elites=2, iterations=1, max_steps=3,
    horizon=2, reward="learned",
)  # fmt: skip


def test_the_environment_is_made_as_in_the_models_data(
    cart_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    played = run_plan(CART, Home(cart_home), None)
    assert played.returns.tolist() == [6, 6]
    assert played.lengths.tolist() == [3, 3]
    # No task knows success, so the environment is believed.
    assert played.success_share == 1
    caplog.clear()
    other = CART.model_copy(update={"env_kwargs": {"strength": 3.0}})
    assert run_plan(other, Home(cart_home), None).returns.tolist() == [9, 9]
    (told,) = [message for message in caplog.messages if "warning" in message]
    assert "made with {'strength': 2.0}, got --env-kwargs {'strength': 3.0}" in told


def test_start_states_are_of_seeds_that_the_environment_takes(cart_home: Path) -> None:
    for changes, seeds in (({"episodes": 3}, {3, 4, 5}), ({"seed_range": (8, 9)}, {8, 9})):
        Cart.seeds.clear()
        run_plan(CART.model_copy(update=changes), Home(cart_home), None)
        # Each of them, before one comes twice.
        assert set(Cart.seeds) == seeds
        assert len(Cart.seeds) == len(seeds)


def test_an_environment_without_a_limit_is_told_the_option_that_there_is(cart_home: Path) -> None:
    endless = CART.model_copy(update={"max_steps": None})
    with pytest.raises(InvalidInput, match=r"expected max_steps \(--max-steps\) for Cart-v0"):
        run_plan(endless, Home(cart_home), None)


@pytest.mark.parametrize(("reward", "got"), [(None, "none"), ("dense", "dense")])
def test_without_a_task_a_learned_reward_is_advised(
    cart_home: Path, reward: str | None, got: str
) -> None:
    plan = CART.model_copy(update={"reward": reward})
    message = f"--reward: expected learned for Cart-v0, .* got {got}; .*--learn-reward"
    with pytest.raises(InvalidInput, match=message):
        run_plan(plan, Home(cart_home), None)


def test_how_spaces_differ_is_named(slide_home: Path, cart_home: Path) -> None:
    plan = CART.model_copy(update={"model": "slide"})
    with pytest.raises(InvalidInput, match=r"\(observations: expected 1 columns, got 4\)"):
        run_plan(plan, Home(slide_home), None)


def test_discrete_actions_are_refused_before_a_model_is_loaded(cart_home: Path) -> None:
    plan = CART.model_copy(update={"env": "CartPole-v1"})
    with pytest.raises(InvalidInput, match="continuous actions for CEM, got choices 0 to 1"):
        run_plan(plan, Home(cart_home), None)
