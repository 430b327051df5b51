import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.networks import EnsembleLinear, EnsembleNetwork, standardised_variance


def _network(learned_variance: bool = True, **options: object) -> EnsembleNetwork:
    network = EnsembleNetwork(3, 4, (6, 5), 2, learned_variance=learned_variance, **options)
    network.initialize("xavier_uniform", torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return network


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_raw_output_of_zero_is_unit_variance() -> None:
    raw = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(standardised_variance(raw), torch.ones_like(raw), rtol=0, atol=1e-12)


@given(raw=st.floats(-1e6, 1e6))
def test_variance_stays_within_its_bounds_and_its_gradient_finite(raw: float) -> None:
    for dtype in (torch.float32, torch.float64):
        leaf = torch.tensor(raw, dtype=dtype, requires_grad=True)
        variance = standardised_variance(leaf)
        variance.backward()
        assert torch.tensor(1e-8, dtype=dtype) <= variance <= 100
        assert leaf.grad is not None
        assert 0 <= leaf.grad <= 1


@given(raw=st.floats(-15, 90))
def test_variance_is_the_formula_and_its_gradient_the_finite_difference(raw: float) -> None:
    def plain(x: float) -> float:
        return float(np.logaddexp(0, x + math.log(math.expm1(1 - 1e-8)))) + 1e-8

    leaf = torch.tensor(raw, dtype=torch.float64, requires_grad=True)
    variance = standardised_variance(leaf)
    variance.backward()
    assert float(variance.detach()) == pytest.approx(plain(raw), rel=1e-8)
    step = 1e-5
    slope = (plain(raw + step) - plain(raw - step)) / (2 * step)
    assert float(leaf.grad) == pytest.approx(slope, rel=1e-4)


def test_the_bound_from_above_kills_the_gradient() -> None:
    leaf = torch.tensor([101.0], requires_grad=True)
    standardised_variance(leaf).backward()
    assert leaf.grad.tolist() == [0.0]


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("learned_variance", [True, False])
def test_forward_is_a_loop_over_members(activation: str, learned_variance: bool) -> None:
    network = _network(learned_variance, activation=activation)
    network.residual_variance.copy_(torch.arange(1.0, 7.0).view(3, 1, 2))
    own = torch.randn(3, 7, 4)
    activate = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "silu": lambda x: x * torch.sigmoid(x),
    }[activation]
    for inputs in (own, own[0]):
        found = network(inputs)
        assert found.mean.shape == found.variance.shape == (3, 7, 2)
        for member in range(3):
            features = own[member] if inputs is own else own[0]
            for layer in network.trunk:
                features = activate(features @ layer.weight[member] + layer.bias[member])
            raw = features @ network.head.weight[member] + network.head.bias[member]
            torch.testing.assert_close(found.mean[member], raw[:, :2])
            variance = (
                standardised_variance(raw[:, 2:])
                if learned_variance
                else network.residual_variance[member].expand(7, 2)
            )
            torch.testing.assert_close(found.variance[member], variance)


@pytest.mark.parametrize("learned_variance", [True, False])
def test_a_members_gradient_touches_no_other_member(learned_variance: bool) -> None:
    network = _network(learned_variance)
    prediction = network(torch.randn(3, 7, 4))
    (prediction.mean[1].sum() + prediction.variance[1].sum()).backward()
    for parameter in network.parameters():
        assert parameter.grad[[0, 2]].count_nonzero() == 0
        assert parameter.grad[1].count_nonzero() > 0


def test_gradients_are_finite_differences() -> None:
    network = _network(activation="tanh").double()
    inputs = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)

    def outputs(inputs: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = [name for name, _ in network.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        gaussian = torch.func.functional_call(network, given, (inputs,))
        return gaussian.mean, gaussian.variance

    assert torch.autograd.gradcheck(outputs, (inputs, *network.parameters()), fast_mode=True)


@pytest.mark.parametrize(
    ("kind", "blocks", "bound"),
    [
        ("xavier_uniform", 1, math.sqrt(6 / (50 + 40))),
        # Mean and variance are two maps to 20 outputs each, not one to 40.
        ("xavier_uniform", 2, math.sqrt(6 / (50 + 20))),
        ("lecun_uniform", 1, math.sqrt(3 / 50)),
        ("lecun_uniform", 2, math.sqrt(3 / 50)),
    ],
)
def test_initial_weights_are_uniform_within_the_bound(kind: str, blocks: int, bound: float) -> None:
    layer = EnsembleLinear(4, 50, 40)
    with torch.no_grad():
        layer.bias.fill_(1)
    layer.initialize(kind, torch.Generator().manual_seed(0), blocks)
    assert layer.bias.count_nonzero() == 0
    for weight in layer.weight.detach():
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(float(weight.mean())) < 0.05 * bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_initial_weights_follow_from_the_generator_and_differ_between_members() -> None:
    first, again, other = (_untouched(seed) for seed in (1, 1, 2))
    for name, tensor in first.named_parameters():
        assert torch.equal(tensor, again.get_parameter(name))
        if name.endswith("weight"):
            assert not torch.equal(tensor, other.get_parameter(name))
            assert not torch.equal(tensor[0], tensor[1])


def _untouched(seed: int) -> EnsembleNetwork:
    network = EnsembleNetwork(3, 4, (6, 5), 2)
    network.initialize("lecun_uniform", torch.Generator().manual_seed(seed))
    return network


def test_the_head_is_initialised_as_two_maps() -> None:
    network = EnsembleNetwork(1, 4, (50,), 20)
    network.initialize("xavier_uniform", torch.Generator().manual_seed(0))
    assert network.head.weight.abs().max() > math.sqrt(6 / (50 + 40))


def test_no_hidden_layer_is_a_linear_map() -> None:
    network = EnsembleNetwork(2, 3, (), 1, learned_variance=False)
    network.initialize("lecun_uniform", torch.Generator().manual_seed(0))
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(network(inputs).mean[1], inputs @ network.head.weight[1])
