import json
import threading
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

from dynlearn.client import DynamicsClient
from dynlearn.config import ServeConfig, TrainConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.models.spec import ModelSpec
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.protocol.messages import HEADER_LENGTH, decode_response, encode_request
from dynlearn.registry import Registry
from dynlearn.rollout.returns import Estimator, estimate_returns
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn.task import find_task
from dynlearn.training.provenance import write_training
from dynlearn_services.server import running_server

STARTS, CANDIDATES, STEPS = 3, 4, 5
SLIDE = find_task("dynlearn/ObjectSlide-v1")


def slide_model(action_space, targets=(0, 1, 2, 3)):
    spec = ModelSpec(
        observation_space=ObservationSpace(
            observation=BoxSpace(low=(-9,) * 4, high=(9,) * 4), goal=BoxSpace(low=(-9,), high=(9,))
        ),
        action_space=action_space,
        observation_columns=(0, 1, 2, 3),
        target_columns=targets,
        members=3,
        hidden=(16,),
    )
    model = DynamicsModel(spec)
    generators = [torch.Generator().manual_seed(member) for member in range(3)]
    model.regressor.network.initialize("lecun_uniform", generators)
    return model


def slide_reward():
    """What a slide is worth to a goal of one column, by random weights."""
    regressor = EnsembleRegressor(reward_spec(10, (8,), "silu"))
    regressor.network.initialize("lecun_uniform", [torch.Generator().manual_seed(0)])
    regressor.input_scaler.std.fill_(0.1)
    return LearnedReward(regressor, observation_size=4, action_size=1)


def published(model, environment=SLIDE.environment):
    """What writes a model, and of which environment it is."""

    def write(folder):
        model.save(folder)
        config = TrainConfig(dataset="data", model="model")
        write_training(folder, config, {"environment": environment}, "test", [])

    return write


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.publish("slide", published(slide_model(BoxSpace(low=(-1,), high=(1,)))))
    cart = slide_model(BoxSpace(low=(-1,), high=(1,)))
    registry.publish("cart", published(cart, "CartPole-v1"))
    registry.publish("nobodys", cart.save)
    registry.publish("walk", slide_model(DiscreteSpace(n=3, start=1)).save)
    registry.publish("part", slide_model(BoxSpace(low=(-1,), high=(1,)), (2,)).save)
    wild = slide_model(BoxSpace(low=(-1,), high=(1,)))
    with torch.no_grad():
        wild.regressor.network.perceptrons[0][-1].bias.fill_(3e38)
        wild.regressor.target_scaler.std.fill_(100)
    registry.publish("wild", published(wild))
    growing = slide_model(BoxSpace(low=(-1,), high=(1,)))
    with torch.no_grad():
        growing.regressor.network.perceptrons[0][-1].bias.fill_(5)
        growing.regressor.target_scaler.std.fill_(1e36)
    registry.publish("growing", growing.save)

    def with_reward(folder):
        published(slide_model(BoxSpace(low=(-1,), high=(1,))))(folder)
        slide_reward().save(folder)

    registry.publish("judge", with_reward)
    return registry


@pytest.fixture(scope="module")
def url(registry):
    config = ServeConfig(port=0, max_rows=5_000, max_answer_bytes=200_000)
    with running_server(config, registry.root) as url:
        yield url


@pytest.fixture(scope="module")
def model(registry):
    return DynamicsModel.load(registry.resolve("slide").folder)


@pytest.fixture(scope="module")
def tensors():
    draws = np.random.default_rng(0)
    return {
        "observations": draws.normal(size=(STARTS, 4)).astype("f4"),
        "actions": draws.uniform(-1, 1, (STARTS, CANDIDATES, STEPS, 1)).astype("f4"),
        "context": draws.normal(size=(STARTS, 1)).astype("f4"),
    }


def post(url, tensors, outputs=(), name="slide", **parameters):
    message = encode_request(tensors, outputs, parameters)
    address = f"{url}/v1/models/{name}/rollout"
    return httpx.post(
        address, content=message.body, headers=message.headers, trust_env=False, timeout=30
    )


def found(answer):
    assert answer.status_code == 200, answer.text
    return decode_response(answer.content, answer.headers.get(HEADER_LENGTH))


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation", "moment_matching"])
def test_returns_are_those_of_the_model_in_process(url, model, tensors, propagation):
    answer = post(
        url,
        tensors,
        ("returns", "return_std"),
        reward="smooth",
        particles=7,
        propagation=propagation,
        seed=11,
        discount=0.9,
        risk_aversion=0.5,
    )
    response = found(answer)
    expected = estimate_returns(
        model,
        SLIDE.reward("smooth"),
        *(torch.from_numpy(tensors[name]) for name in ("observations", "actions", "context")),
        particles=7,
        propagation=propagation,
        risk_aversion=0.5,
        seed=11,
        discount=0.9,
    )
    assert (response.model_name, response.model_version) == ("slide", "1")
    np.testing.assert_allclose(response.outputs["returns"], expected.score, rtol=1e-5)
    np.testing.assert_allclose(response.outputs["return_std"], expected.std, rtol=1e-4, atol=1e-6)


def test_a_learned_reward_judges_as_it_does_in_process(url, model, tensors):
    parameters = {"particles": 4, "propagation": "ts1", "seed": 5, "reward": "learned"}
    answer = post(url, tensors, name="judge", **parameters)
    observation, actions, context = (torch.from_numpy(tensors[name]) for name in tensors)
    expected = estimate_returns(
        model, slide_reward(), observation, actions, context, 4, "ts1", risk_aversion=0.0, seed=5
    )
    np.testing.assert_allclose(found(answer).outputs["returns"], expected.mean, rtol=1e-5)
    without = {name: tensors[name] for name in ("observations", "actions")}
    refused = post(url, without, name="judge", **parameters)
    assert refused.status_code == 400
    assert "context: expected the goal, of 1 columns, got 0" in refused.json()["error"]
    unknown = post(url, tensors, **parameters)
    assert unknown.status_code == 400
    assert "train one with --learn-reward" in unknown.json()["error"]


@pytest.mark.parametrize("reward", ["smooth", "learned"])
def test_a_planner_has_sequences_judged_in_one_request(url, model, tensors, reward):
    arguments = [torch.from_numpy(tensors[name]) for name in tensors]
    arguments += [6, "tsinf", 0.5, 3, 0.9]
    function = slide_reward() if reward == "learned" else SLIDE.reward(reward)
    with DynamicsClient(url, model="judge") as client:
        assert client.spec.rewards == {SLIDE.environment: tuple(SLIDE.rewards)}
        dynamics = RemoteDynamics(client, SLIDE.environment)
        judged = estimate_returns(dynamics, reward, *arguments)
    for found_part, expected in zip(
        judged, estimate_returns(model, function, *arguments), strict=True
    ):
        torch.testing.assert_close(found_part, expected, rtol=1e-5, atol=1e-6)


def test_what_is_lost_over_http_is_never_chosen(url, tensors):
    arguments = [torch.from_numpy(tensors[name]) for name in tensors]
    with DynamicsClient(url, model="wild") as client:
        dynamics = RemoteDynamics(client)
        judged = dynamics.judge(Estimator(dynamics, "smooth", 6), *arguments, 3)
    assert judged.score.isneginf().all()


def test_a_rewards_name_means_nothing_in_process(model, tensors):
    arguments = [torch.from_numpy(tensors[name]) for name in tensors]
    with pytest.raises(InvalidInput, match="expected a function in process, got the name 'smooth'"):
        estimate_returns(model, "smooth", *arguments, 6, "tsinf", 0.0, 3)


def test_the_learned_reward_of_a_prediction(url, model, tensors):
    rows = {
        "observation": tensors["observations"],
        "action": tensors["actions"][:, 0, 0],
        "context": tensors["context"],
    }

    def predict(rows, name="judge", outputs=("reward_mean", "next_observation_mean")):
        message = encode_request(rows, outputs)
        address = f"{url}/v2/models/{name}/infer"
        return httpx.post(
            address, content=message.body, headers=message.headers, trust_env=False, timeout=30
        )

    answer = found(predict(rows)).outputs
    observation, action, context = (torch.from_numpy(values) for values in rows.values())
    prediction = model.predict(observation, action)
    each = [slide_reward()(observation, action, mean, context) for mean in prediction.member_means]
    np.testing.assert_allclose(answer["reward_mean"], torch.stack(each).mean(0), rtol=1e-5)
    np.testing.assert_allclose(answer["next_observation_mean"], prediction.mean, rtol=1e-5)
    metadata = httpx.get(f"{url}/v2/models/judge", trust_env=False).json()
    assert metadata["parameters"]["learned_reward"]
    assert metadata["parameters"]["context_size"] == 1
    assert {"name": "reward_mean", "datatype": "FP32", "shape": [-1]} in metadata["outputs"]
    for changes, name, message in (
        ({"context": None}, "judge", "context: expected the goal, of 1 columns, got 0"),
        ({"context": rows["context"][:2]}, "judge", "context: expected 3 rows"),
        ({"context": rows["observation"]}, "judge", "context: expected shape [rows, 1]"),
        ({"context": None}, "slide", "a model that has learned a reward for reward_mean"),
    ):
        given = {key: value for key, value in (rows | changes).items() if value is not None}
        refused = predict(given, name)
        assert refused.status_code == 400
        assert message in refused.json()["error"]
    # Scaled as it was learned, it leaves the numbers of float32.
    far = predict(rows | {"context": np.full((3, 1), 3e38, np.float32)})
    assert (far.status_code, "context: expected values like" in far.text) == (400, True)
    refused = predict(rows, "slide", ["next_observation_mean"])
    assert (refused.status_code, "context: expected none" in refused.text) == (400, True)


def test_trajectories_are_those_of_the_model_in_process(url, model, tensors):
    trajectory = model.rollout(tensors["observations"], tensors["actions"], 6, "ts1", 3)
    plain = {name: tensors[name] for name in ("observations", "actions")}
    outputs = ("trajectory_mean", "trajectory_variance", "trajectory_covariance", "particles")
    values = found(post(url, plain, outputs, particles=6, propagation="ts1", seed=3)).outputs
    expected = trajectory.mean, trajectory.variance, trajectory.covariance, trajectory.particles
    for name, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(values[name], value, rtol=1e-4, atol=1e-5)
    diagonal = np.diagonal(values["trajectory_covariance"], axis1=-2, axis2=-1)
    np.testing.assert_allclose(values["trajectory_variance"], diagonal, rtol=1e-4, atol=1e-6)


def test_the_servers_own_choice_of_outputs(url, tensors):
    plain = {name: tensors[name] for name in ("observations", "actions")}
    assert set(found(post(url, plain)).outputs) == {"trajectory_mean", "trajectory_covariance"}
    assert set(found(post(url, tensors, reward="dense")).outputs) == {"returns"}


def test_json_both_ways(url, tensors):
    document = {
        "id": "7",
        "inputs": [
            {"name": n, "datatype": "FP32", "shape": v.shape, "data": v.tolist()}
            for n, v in tensors.items()
        ],
        "parameters": {"reward": "dense", "particles": 2},
    }
    address = f"{url}/v1/models/slide/versions/1/rollout"
    answer = httpx.post(address, content=json.dumps(document), trust_env=False).json()
    assert answer["id"] == "7"
    assert answer["outputs"][0]["shape"] == [STARTS, CANDIDATES]
    binary = found(post(url, tensors, reward="dense", particles=2)).outputs["returns"]
    np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), binary.ravel())


def test_discrete_actions(url, tensors):
    choices = np.ones((STARTS, CANDIDATES, STEPS), np.int64)
    plain = {"observations": tensors["observations"], "actions": choices}
    answer = found(post(url, plain, ("trajectory_mean",), "walk"))
    assert answer.outputs["trajectory_mean"].shape == (STARTS, CANDIDATES, STEPS, 4)
    refused = post(url, plain | {"actions": choices - 1}, (), "walk")
    assert "actions: expected integers 1 to 3, got 0 to 0" in refused.json()["error"]


def test_a_return_that_is_not_finite_is_the_lowest_number(url, tensors):
    values = found(post(url, tensors, name="wild", reward="dense")).outputs["returns"]
    assert (values == np.finfo(np.float32).min).all()
    plain = {name: tensors[name] for name in ("observations", "actions")}
    refused = post(url, plain, ("trajectory_mean",), "wild")
    assert refused.status_code == 500
    assert "trajectory_mean: expected finite values" in refused.json()["error"]


@pytest.mark.parametrize("output", ["trajectory_mean", "particles"])
def test_a_horizon_that_leads_out_of_the_numbers_is_named(url, tensors, output):
    """The first step leads to 5e36, from where the next leads beyond float32."""
    plain = {name: tensors[name] for name in ("observations", "actions")}
    refused = post(url, plain, (output,), "growing")
    assert refused.status_code == 400
    assert f"stay finite, got {STEPS} steps, of which 1 are" in refused.json()["error"]


def test_rewards_are_of_the_models_own_environment(url, tensors):
    """Another's observations may have as many columns, and mean other things."""
    with DynamicsClient(url, model="cart") as client:
        assert client.spec.rewards == {}
        assert client.spec.context_size == 0
    with DynamicsClient(url, model="slide") as client:
        assert client.spec.rewards == {SLIDE.environment: tuple(SLIDE.rewards)}
        assert client.spec.context_size == 1
    for parameters in ({}, {"environment": SLIDE.environment}):
        refused = post(url, tensors, name="cart", reward="smooth", **parameters)
        assert refused.status_code == 400
        assert "CartPole-v1" in refused.json()["error"]


def test_who_knows_the_environment_of_a_model_may_name_it(url, tensors):
    refused = post(url, tensors, name="nobodys", reward="smooth")
    assert "parameters.environment: expected the environment" in refused.json()["error"]
    named = {"reward": "smooth", "environment": SLIDE.environment}
    returns = found(post(url, tensors, name="nobodys", **named)).outputs["returns"]
    own = found(post(url, tensors, reward="smooth")).outputs["returns"]
    np.testing.assert_array_equal(returns, own)


def test_a_reward_that_fails_does_so_away_from_the_event_loop(registry, tensors, monkeypatch):
    threads = []

    def reward(before, action, after, context):
        threads.append(threading.current_thread().name)
        return SLIDE.rewards["dense"](before, action, after, context)

    task = replace(SLIDE, rewards={"dense": reward})
    monkeypatch.setattr(
        "dynlearn_services.server.service.installed_tasks", lambda: {SLIDE.environment: task}
    )
    with running_server(ServeConfig(port=0, model=("slide",)), registry.root) as url:
        found(post(url, tensors, reward="dense"))
    assert "http" not in threads
    assert threads


def test_moments_of_some_sequences_at_a_time(url, model, tensors, monkeypatch):
    plain = {name: tensors[name] for name in ("observations", "actions")}
    names = ("trajectory_mean", "trajectory_variance", "trajectory_covariance")
    whole = found(post(url, plain, names, particles=6)).outputs
    monkeypatch.setattr("dynlearn_services.server.calls.rollouts._MOMENT_NUMBERS", 1)
    for name, values in found(post(url, plain, names, particles=6)).outputs.items():
        np.testing.assert_array_equal(values, whole[name])


def test_a_misspelt_reward_is_told_of_the_learned_one(url, tensors):
    refused = post(url, tensors, name="judge", reward="lerned")
    assert "did you mean learned" in refused.json()["error"]


@pytest.mark.parametrize(
    ("changes", "outputs", "parameters", "status", "message"),
    [
        ({"context": None, "actions": None}, (), {}, 400, "inputs: expected observations and"),
        ({"goal": np.zeros(3, "f4")}, (), {}, 400, "inputs: expected observations and actions"),
        (
            {"observations": np.zeros((3, 5), "f4")},
            (),
            {},
            400,
            "observations: expected shape [starts, 4], got [3, 5]",
        ),
        (
            {"actions": np.zeros((3, 4, 5), "f4")},
            (),
            {},
            400,
            "actions: expected shape [starts, candidates, steps, 1], got [3, 4, 5]",
        ),
        ({"actions": np.zeros((2, 4, 5, 1), "f4")}, (), {}, 400, "actions: expected 3 starts"),
        ({"context": np.zeros((2, 1), "f4")}, (), {}, 400, "context: expected 3 starts"),
        ({"context": np.zeros(3, "f4")}, (), {}, 400, "context: expected shape [starts, columns]"),
        (
            {"context": None},
            (),
            {"reward": "dense"},
            400,
            "context: expected the goal, of 1 columns, got 0",
        ),
        (
            {"context": np.zeros((3, 5), "f4")},
            (),
            {"reward": "dense"},
            400,
            "context: expected the goal, of 1 columns, got 5",
        ),
        (
            {},
            (),
            {"reward": "dens"},
            400,
            "parameters.reward: expected a reward of dynlearn/ObjectSlide-v1, with 4",
        ),
        (
            {},
            (),
            {"reward": "dense", "environment": "FetchPickAndPlace-v4"},
            400,
            "parameters.environment: expected dynlearn/ObjectSlide-v1",
        ),
        ({}, ("returns",), {}, 400, "parameters.reward: expected a reward for returns"),
        ({}, ("return",), {}, 400, "did you mean"),
        ({}, (), {"propagation": "ts3"}, 400, "parameters.propagation: "),
        ({}, (), {"particles": 0}, 400, "parameters.particles: "),
        ({}, (), {"discount": 1.5}, 400, "parameters.discount: "),
        ({}, (), {"seed": -1}, 400, "parameters.seed: "),
        ({}, (), {"particles": 1000}, 413, "actions: expected at most 5000 particles"),
        ({}, ("particles",), {"particles": 400}, 413, "outputs: expected an answer of at most"),
        ({}, ("trajectory_mean",), {"particles": 400}, 413, "outputs: expected an answer"),
    ],
)
def test_what_is_refused(url, tensors, changes, outputs, parameters, status, message):
    given = {name: value for name, value in (tensors | changes).items() if value is not None}
    answer = post(url, given, outputs, **parameters)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_a_horizon_has_an_end_however_few_the_rows(url, tensors):
    one = {
        "observations": tensors["observations"][:1],
        "actions": np.zeros((1, 1, 80_000, 1), "f4"),
    }
    refused = post(url, one, particles=1)
    assert refused.status_code == 413
    assert "got 1 x 80000, where a step counts as 256" in refused.json()["error"]


def test_a_model_of_some_columns_cannot_roll_out(url, tensors):
    answer = post(url, tensors, name="part")
    assert answer.status_code == 400
    assert "train without target_columns" in answer.json()["error"]
