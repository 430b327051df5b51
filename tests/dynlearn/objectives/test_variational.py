import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.config.choices import ObjectiveName
from dynlearn.data.transitions import Transitions
from dynlearn.distributions.student_t import StudentT, VariationalStudentT
from dynlearn.errors import InvalidInput
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.spec import ModelSpec
from dynlearn.objectives import make_objective
from dynlearn.objectives.variational import VBEM, XVAMP, VariationalObjective
from dynlearn.seeds import derived_generator
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.fit import TrainedModel, dynamics_samples, fit, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.trainer import Trainer

NAMES: tuple[ObjectiveName, ...] = ("xvamp", "xvamp_star", "vbem", "vbem_star")
STUDENT_T: tuple[ObjectiveName, ...] = ("student_t", *NAMES)
E, B, D, I, M = 2, 6, 3, 4, 150  # noqa: E741
IDS = torch.arange(B).expand(E, B)
SEEDS = [11, 12]
GRID = [0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4]

MakeTransitions = Callable[..., Transitions]


def _objective(name: ObjectiveName) -> VariationalObjective:
    objective = make_objective(TrainConfig(dataset="d", model="m", objective=name))
    assert isinstance(objective, VariationalObjective)
    return objective


def _network(components: int, members: int = E) -> EnsembleNetwork:
    network = EnsembleNetwork(members, I, (8,), Head("student_t", D, components)).double()
    network.initialize("lecun_uniform", [derived_generator(0, 0, m) for m in range(members)])
    return network


def _attached(
    name: ObjectiveName, samples: int = M, seeds: Sequence[int] = tuple(SEEDS)
) -> tuple[VariationalObjective, EnsembleNetwork]:
    """Return an objective and its network, in float64, of as many members as seeds."""
    objective = _objective(name)
    network = _network(objective.components, len(seeds))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, I, generator=generator, dtype=torch.float64)
    targets = torch.randn(samples, D, generator=generator, dtype=torch.float64)
    objective.attach(network, inputs, targets, seeds)
    return objective, network


def _leaves(components: int) -> tuple[list[Tensor], Tensor]:
    """Return leaves for a posterior's mean, concentration, rate and logits, and targets."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(4, E, B, D, generator=generator, dtype=torch.float64)
    logits = torch.randn(E, B, D, components, generator=generator, dtype=torch.float64)
    leaves = [draws[0], 1.01 + draws[1].exp(), draws[2].exp(), logits]
    return [leaf.clone().requires_grad_() for leaf in leaves], draws[3]


def _constant(
    objective: VariationalObjective, a: float, b: float, logits: Tensor, rows: int
) -> VariationalStudentT:
    """Return many equal rows of one member and dimension, at an objective attached to them."""
    ones = torch.ones(1, rows, 1, dtype=torch.float64)
    objective.attach(_network(1, 1), torch.zeros(1, I).double(), torch.zeros(1, 1).double(), [5])
    return VariationalStudentT(0 * ones, a * ones, b * ones, logits.double().expand(1, rows, 1, -1))


# What they ask for


@pytest.mark.parametrize(
    ("name", "kind", "components", "trainable"),
    [
        ("xvamp", XVAMP, 100, False),
        ("xvamp_star", XVAMP, 100, True),
        ("vbem", VBEM, 144, False),
        ("vbem_star", VBEM, 100, True),
    ],
)
def test_by_name(
    name: ObjectiveName, kind: type[XVAMP | VBEM], components: int, trainable: bool
) -> None:
    objective = _objective(name)
    assert isinstance(objective, kind)
    assert objective.trainable is trainable
    assert objective.components == components
    assert objective.head("diagonal") == "student_t"
    with pytest.raises(InvalidInput, match=f"expected a diagonal covariance with {name}"):
        objective.head("full")


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_keeps_its_own_parts_alone_members_first(name: ObjectiveName) -> None:
    objective, _ = _attached(name)
    learned = {n: list(p.shape) for n, p in objective.named_parameters()}
    assert (
        learned
        == {
            "xvamp": {},
            "xvamp_star": {"pseudo_inputs": [E, 100, I]},
            "vbem": {},
            "vbem_star": {"gammas": [E, 2, 100, D]},
        }[name]
    )
    state = objective.state_dict()
    kept = {"vbem": set(), "vbem_star": {"gammas"}}.get(name, {"pseudo_inputs"})
    assert state.keys() == kept | {"_extra_state"}
    assert all(len(tensor) == E for tensor in state.values())
    assert not list(objective.children())


# The prior


def test_the_gammas_of_vbem_are_a_fixed_grid() -> None:
    concentration, rate = _attached("vbem")[0].prior()
    assert concentration.shape == rate.shape == (E, 144, D)
    pairs = [(a, b) for a in GRID for b in GRID]
    for member in range(E):
        found = torch.stack((concentration, rate), -1)[member, :, 0]
        torch.testing.assert_close(found, torch.tensor(pairs).double())


def test_the_gammas_of_vbem_star_start_at_random_ones_of_every_member_and_target() -> None:
    objective, _ = _attached("vbem_star")
    gammas = torch.stack(objective.prior())
    assert gammas.shape == (2, E, 100, D)
    # Softplus of ±3.
    assert 0.0485 < gammas.min() < 0.06
    assert 3 < gammas.max() < 3.0487
    assert len(gammas.unique()) > 0.99 * gammas.numel()


@pytest.mark.parametrize("name", ["xvamp", "xvamp_star"])
@pytest.mark.parametrize("samples", [1, 7, 100, M])
def test_pseudo_inputs_are_training_inputs_each_as_often_as_the_next(
    name: ObjectiveName, samples: int
) -> None:
    objective, network = _attached(name, samples)
    inputs = torch.randn(
        samples, I, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert isinstance(objective, XVAMP)
    for member in range(E):
        same = objective.pseudo_inputs[member].unsqueeze(1) == inputs
        counts = same.all(-1).sum(0)
        assert counts.sum() == 100
        assert counts.max() - counts.min() <= 1
    if samples > 1:
        assert not torch.equal(*objective.pseudo_inputs.detach())
    answer = network(objective.pseudo_inputs)
    torch.testing.assert_close(objective.prior(), (answer.concentration, answer.rate))


@pytest.mark.parametrize("name", ["xvamp", "xvamp_star"])
def test_the_gradient_reaches_trunk_and_pseudo_inputs_through_the_prior(
    name: ObjectiveName,
) -> None:
    objective, network = _attached(name)
    (mean, concentration, rate, logits), target = _leaves(100)
    posterior = VariationalStudentT(*(x.detach() for x in (mean, concentration, rate, logits)))
    objective.loss(posterior, target, IDS).sum().backward()
    trunk = network.get_parameter("perceptrons.0.0.weight")
    assert trunk.grad is not None
    assert trunk.grad.isfinite().all()
    assert (trunk.grad.abs().amax((1, 2)) > 1e-6).all()
    if name == "xvamp_star":
        grad = objective.get_parameter("pseudo_inputs").grad
        assert grad is not None
        assert (grad.abs().amax((1, 2)) > 1e-9).all()


@pytest.mark.parametrize("name", ["xvamp", "xvamp_star"])
def test_pseudo_inputs_may_be_the_batch_itself(name: ObjectiveName) -> None:
    objective, network = _attached(name, samples=B)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(B, I, generator=generator, dtype=torch.float64)
    prediction = network(inputs)
    loss = objective.loss(prediction, torch.zeros(E, B, D).double(), IDS)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# The loss


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_torchs_distributions(name: ObjectiveName) -> None:
    objective, network = _attached(name)
    leaves, target = _leaves(objective.components)
    loss = objective.loss(VariationalStudentT(*leaves), target, IDS)
    parameters = [*leaves, *objective.parameters()]
    if name.startswith("xvamp"):
        parameters += network.parameters()
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)

    mean, concentration, rate, logits = leaves
    posterior = torch.distributions.Gamma(concentration, rate)
    prior = torch.distributions.Gamma(
        *(parameter.mT.unsqueeze(1) for parameter in objective.prior())
    )
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), prior
    )
    precision = torch.stack(
        [
            torch._standard_gamma(
                concentration[member].expand(20, B, D), derived_generator(seed, 1, 0)
            )
            for member, seed in enumerate(SEEDS)
        ],
        1,
    ) / rate  # fmt: skip
    divergence = -posterior.entropy() - mixture.log_prob(precision).mean(0)
    # A Gaussian's log-density is linear in λ and ln λ, whose means are known.
    expected_log = torch.digamma(concentration) - rate.log()
    log_prob = (
        0.5 * expected_log
        - 0.5 * math.log(2 * math.pi)
        - 0.5 * posterior.mean * (target - mean) ** 2
    )
    expected = (divergence - log_prob).sum(2).mean(1)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    assert sum(gradient is not None for gradient in found) >= 4
    for computed, gradient in zip(found, wanted, strict=True):
        # Of the network, what the mean and the logits alone depend on has no gradient here.
        torch.testing.assert_close(computed, gradient)


@pytest.mark.parametrize("name", ["vbem", "vbem_star"])
def test_the_gradients_are_finite_differences_at_fixed_quantiles(name: ObjectiveName) -> None:
    """The loss again in NumPy: its draws are quantiles, so it has slopes of its own."""
    objective, _ = _attached(name)
    leaves, target = _leaves(objective.components)
    loss = objective.loss(VariationalStudentT(*leaves), target, IDS)
    gradients = torch.autograd.grad(loss.sum(), leaves)
    values = [leaf.detach().numpy() for leaf in leaves]
    draws = np.stack(
        [
            torch._standard_gamma(
                leaves[1][member].detach().expand(20, B, D), derived_generator(seed, 1, 0)
            ).numpy()
            for member, seed in enumerate(SEEDS)
        ],
        1,
    )
    quantile = special.gammainc(values[1], draws)
    prior = [np.swapaxes(p.detach().numpy(), 1, 2)[:, None] for p in objective.prior()]

    def plain(mean: Any, a: Any, b: Any, logits: Any) -> float:
        precision = special.gammaincinv(a, quantile) / b
        data = (
            special.digamma(a) - np.log(2 * np.pi * b) - a / b * (target.numpy() - mean) ** 2
        ) / 2
        density = stats.gamma.logpdf(precision[..., None], prior[0], 0, 1 / prior[1])
        weights = special.log_softmax(logits, -1)
        divergence = -stats.gamma.entropy(a, 0, 1 / b) - special.logsumexp(
            weights + density, -1
        ).mean(0)
        return float((divergence - data).sum() / B)

    assert plain(*values) == pytest.approx(loss.sum().item(), rel=1e-9)
    step = 1e-5
    for index, gradient in enumerate(gradients):
        for place in ((0, 0, 0), (0, 4, 2), (1, 5, 1)):
            slopes = []
            for sign in (1, -1):
                shifted = [value.copy() for value in values]
                shifted[index][(*place, 7) if index == 3 else place] += sign * step
                slopes.append(plain(*shifted))
            slope = (slopes[0] - slopes[1]) / (2 * step)
            computed = gradient[(*place, 7) if index == 3 else place].item()
            # As exact as torch's own derivative of a gamma draw.
            assert computed == pytest.approx(slope, rel=2e-3, abs=2e-5)


@pytest.mark.parametrize(("a", "b"), [(1.5, 0.05), (2.0, 0.5), (4.0, 4.0)])
def test_the_divergence_from_a_prior_that_is_the_posterior_is_zero(a: float, b: float) -> None:
    objective = VBEM(trainable=False)
    pairs = [(x, y) for x in GRID for y in GRID]
    logits = torch.where(torch.arange(144) == pairs.index((a, b)), 1e3, 0.0)
    divergence = objective.divergence(_constant(objective, a, b, logits, 2000))
    error = divergence.std() / math.sqrt(2000)
    assert abs(divergence.mean()) < 4 * error < 0.05


@pytest.mark.parametrize(("a", "b"), [(1.001, 0.3), (1.7, 0.694), (5.0, 60.0), (200.0, 100.0)])
def test_the_divergence_is_the_integral_of_its_definition(a: float, b: float) -> None:
    objective = VBEM(trainable=False)
    logits = torch.randn(144, generator=torch.Generator().manual_seed(3))
    weights = special.softmax(logits.double().numpy())
    grid = np.array([(x, y) for x in GRID for y in GRID]).T
    posterior = stats.gamma(a, 0, 1 / b)

    def integrand(precision: float) -> float:
        prior = weights @ stats.gamma.pdf(precision, grid[0], 0, 1 / grid[1])
        return posterior.pdf(precision) * (posterior.logpdf(precision) - math.log(prior))

    low, middle, high = posterior.ppf([1e-12, 0.5, 1 - 1e-12])
    expected = sum(integrate.quad(integrand, *ends)[0] for ends in ((low, middle), (middle, high)))
    divergence = objective.divergence(_constant(objective, a, b, logits, 2000))
    error = divergence.std() / math.sqrt(2000)
    assert abs(divergence.mean() - expected) < 4 * error < 0.05
    assert expected > 0.1


@given(
    a=st.floats(1.001, 1000),
    exponent=st.floats(-11, 6),
    error=st.floats(-1e6, 1e6),
    name=st.sampled_from(NAMES),
)
@settings(max_examples=60)
def test_float32_is_finite_over_the_heads_ranges(
    a: float, exponent: float, error: float, name: ObjectiveName
) -> None:
    objective = _objective(name)
    network = _network(objective.components, 1).float()
    objective.attach(network, torch.zeros(1, I), torch.zeros(1, D), [0])
    parts = [torch.full((1, 2, D), value) for value in (error, a, 10**exponent)]
    leaves = [*parts, torch.randn(1, 2, D, objective.components) * 50]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = objective.loss(VariationalStudentT(*leaves), torch.zeros(1, 2, D), torch.zeros(1, 2))
    assert loss.isfinite().all()
    everything = [*leaves, *objective.parameters()]
    gradients = torch.autograd.grad(loss.sum(), everything)
    assert all(gradient.isfinite().all() for gradient in gradients)


class _AtQuantiles(VBEM):
    """Draws the same quantiles of the posterior in every dtype."""

    def _draw(self, posterior: StudentT) -> Tensor:
        quantiles = np.linspace(0.05, 0.95, 20).reshape(20, 1, 1, 1)
        standard = special.gammaincinv(posterior.concentration.detach().numpy(), quantiles)
        return torch.from_numpy(standard).to(posterior.rate).log() - posterior.rate.log()


@pytest.mark.parametrize(
    ("error", "a", "b"),
    [(1e-5, 1000.0, 1e-7), (1e3, 1.001, 1e6), (1.0, 1000.0, 999.0), (0.3, 1.7, 0.7)],
)
def test_float32_gives_the_slopes_of_float64(error: float, a: float, b: float) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        objective = _AtQuantiles(trainable=False)
        target = torch.zeros(1, 1, D, dtype=dtype)
        objective.attach(_network(1, 1), torch.zeros(1, I), target[0], [0])
        leaves = [torch.full((1, 1, D), value).to(dtype) for value in (error, a, b)]
        for leaf in leaves:
            leaf.requires_grad_()
        prediction = VariationalStudentT(*leaves, torch.zeros(1, 1, D, 144, dtype=dtype))
        found.append(torch.autograd.grad(objective.loss(prediction, target, IDS).sum(), leaves))
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-6)


# Members


@pytest.mark.parametrize("name", NAMES)
def test_members_apart_draw_what_they_draw_together(name: ObjectiveName) -> None:
    objective, _ = _attached(name)
    leaves, target = _leaves(objective.components)
    together = [objective.loss(VariationalStudentT(*leaves), target, IDS) for _ in range(3)]
    assert not torch.equal(together[0], together[1]), "every update has draws of its own"
    alone, _ = _attached(name, seeds=SEEDS[:1])
    for losses in together:
        part = VariationalStudentT(*leaves)[:1]
        torch.testing.assert_close(alone.loss(part, target[:1], IDS[:1]), losses[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_diverged_takes_no_other_along(name: ObjectiveName) -> None:
    losses = []
    for value in (1.5, math.nan):
        objective, _ = _attached(name)
        leaves, target = _leaves(objective.components)
        with torch.no_grad():
            leaves[1][0] = value
        losses.append(objective.loss(VariationalStudentT(*leaves), target, IDS))
    assert losses[1][0].isnan()
    assert torch.equal(losses[0][1], losses[1][1])


# Training


def _config(**options: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "dataset": "d",
            "model": "m",
            "members": 3,
            "hidden": (8,),
            "batch_size": 9,
            "max_updates": 12,
            "validate_every": 3,
            "checkpoint_every": 5,
            "learning_rate": 1e-2,
            **options,
        }
    )


def _box(size: int) -> BoxSpace:
    return BoxSpace(low=(-np.inf,) * size, high=(np.inf,) * size)


def _spec(config: TrainConfig, data: Transitions) -> ModelSpec:
    sizes = data.observation.shape[1], data.action.shape[1]
    return model_spec(config, ObservationSpace(observation=_box(sizes[0])), _box(sizes[1]))


def _fit(config: TrainConfig, train: Transitions, validation: Transitions) -> TrainedModel:
    trained = fit(config, _spec(config, train), train, validation)
    assert trained is not None
    return trained


@pytest.mark.parametrize("name", STUDENT_T)
def test_a_run_stopped_at_any_event_goes_on_to_the_same_bits(
    make_transitions: MakeTransitions, tmp_path: Path, name: ObjectiveName
) -> None:
    config = _config(objective=name)
    train, validation = make_transitions(36), make_transitions(20, seed=1)

    def run(checkpoint: Path | None, stop: int | None = None) -> Trainer:
        spec = _spec(config, train)
        samples = [dynamics_samples(spec, part) for part in (train, validation)]
        hooks = Hooks(checkpoint, should_stop=lambda: trainer.update == stop)
        trainer = Trainer(config, EnsembleRegressor(spec.regressor), *samples, hooks)
        trainer.run()
        return trainer

    undisturbed = run(None)
    for stop in (3, 5, 10):
        path = tmp_path / str(stop)
        assert run(path, stop).update == stop
        resumed = run(path)
        assert resumed.update == 12
        assert resumed.history == undisturbed.history
        expected = undisturbed.regressor.state_dict()
        for part, tensor in resumed.regressor.state_dict().items():
            assert torch.equal(tensor, expected[part]), (stop, part)
        state = resumed.groups[0].state()
        assert all(torch.equal(state[n], t) for n, t in undisturbed.groups[0].state().items())


@pytest.mark.parametrize("name", STUDENT_T)
def test_members_trained_apart_learn_what_they_learn_together(
    make_transitions: MakeTransitions, name: ObjectiveName
) -> None:
    train, validation = make_transitions(36), make_transitions(20, seed=1)
    # Products of other shapes round otherwise, and Adam makes much of gradients near zero.
    together, apart = (
        _fit(
            _config(objective=name, member_groups=groups, precision="float64"), train, validation
        ).model.regressor.state_dict()
        for groups in (1, 3)
    )
    for part, tensor in together.items():
        torch.testing.assert_close(apart[part], tensor, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", STUDENT_T)
def test_the_reported_likelihood_is_of_a_student_t_in_original_units(
    make_transitions: MakeTransitions, name: ObjectiveName
) -> None:
    config = _config(objective=name, members=1, validate_every=12)
    validation = make_transitions(20, seed=1)
    trained = _fit(config, make_transitions(36), validation)
    members = trained.model.predict(validation.observation, validation.action).members
    assert isinstance(members, StudentT)
    mean, a, b = (
        t[0].double().numpy() for t in (members.mean, members.concentration, members.rate)
    )
    density = stats.t.logpdf(validation.next_observation, 2 * a, mean, np.sqrt(b / a))
    assert trained.history[0]["validation_nll"] == pytest.approx(-density.sum(1).mean(), rel=1e-4)


def _noisier_to_the_right(count: int, seed: int) -> Transitions:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 1))
    std = np.where(x > 0, 1.0, 0.2)
    y = np.sin(3 * x) + std * rng.normal(size=x.shape)
    return Transitions(x, np.zeros((count, 1), np.float32), y, np.array([count]))


@pytest.mark.parametrize("name", STUDENT_T)
def test_it_learns_where_the_noise_is(name: ObjectiveName) -> None:
    config = _config(
        objective=name, members=1, hidden=(32,), batch_size=32, max_updates=400,
        validate_every=100, absolute_columns=(0,),
    )  # fmt: skip
    trained = _fit(config, _noisier_to_the_right(600, 0), _noisier_to_the_right(300, 1))
    test = _noisier_to_the_right(2000, 2)
    prediction = trained.model.predict(test.observation, test.action)
    target = torch.from_numpy(test.next_observation)
    constant = stats.norm.logpdf(0, 0, (prediction.mean - target).std()) - 0.5
    assert prediction.log_prob(target).mean() > constant + 0.15
    right = torch.from_numpy(test.observation[:, 0] > 0)
    std = prediction.std[:, 0]
    assert std[right].mean() == pytest.approx(1, abs=0.3)
    assert std[~right].mean() < 0.7


# Rubbish


@pytest.mark.parametrize("name", STUDENT_T)
@pytest.mark.parametrize("rubbish", ["constant", "one", "few", "tiny", "huge", "noiseless"])
def test_odd_data_give_finite_predictions(
    make_transitions: MakeTransitions, name: ObjectiveName, rubbish: str
) -> None:
    count = {"one": 1, "few": 40}.get(rubbish, 110)
    train, validation = (
        make_transitions(count, seed, noise=0.0 if rubbish == "noiseless" else 0.05)
        for seed in (0, 1)
    )
    for data in (train, validation):
        change = data.next_observation - data.observation
        if rubbish == "constant":
            change[:, 1] = 0.525
        scale = {"tiny": 1e-8, "huge": 1e8}.get(rubbish, 1.0)
        # Not differences, which an observation of 5 would swallow at the scale of 1e-8.
        data.next_observation[:] = change * scale
    config = _config(
        objective=name, members=2, batch_size=256, max_updates=12, validate_every=6,
        learning_rate=3e-2, absolute_columns=(0, 1, 2),
    )  # fmt: skip
    trained = _fit(config, train, validation)
    assert all(tensor.isfinite().all() for tensor in trained.model.regressor.state_dict().values())
    prediction = trained.model.predict(validation.observation, validation.action)
    assert prediction.mean.isfinite().all()
    assert prediction.variance.isfinite().all()
    assert (prediction.variance > 0).all()
    history = [value for entry in trained.history for value in entry.values()]
    assert np.isfinite(history).all()
