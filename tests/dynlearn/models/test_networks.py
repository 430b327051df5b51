import math

import pytest
import torch
from torch import Tensor

from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleLinear, EnsembleNetwork, EnsemblePerceptron

KINDS = ["mean", "variance", "std", "scale_tril", "student_t"]


def _generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _network(kind: str = "variance", **options: object) -> EnsembleNetwork:
    network = EnsembleNetwork(3, 4, (6, 5), Head(kind, 2), **options)
    network.initialize("xavier_uniform", _generators(0, 1, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return network


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separate", [False, True])
def test_forward_is_a_loop_over_members(activation: str, kind: str, separate: bool) -> None:
    network = _network(kind, activation=activation, separate=separate)
    assert len(network.perceptrons) == (2 if separate and kind != "mean" else 1)
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
            outputs = []
            for perceptron in network.perceptrons:
                features = own[member] if inputs is own else own[0]
                *hidden, last = perceptron
                for layer in hidden:
                    features = activate(features @ layer.weight[member] + layer.bias[member])
                outputs.append(features @ last.weight[member] + last.bias[member])
            mean, raw = torch.cat(outputs, 1).split((2, sum(network.head.blocks[1:])), 1)
            torch.testing.assert_close(found.mean[member], mean)
            expected = (
                torch.diag_embed(network.residual_variance[member].expand(7, 2))
                if kind == "mean"
                else network.head.distribution(mean, raw).covariance
            )
            torch.testing.assert_close(found.covariance[member], expected)


@pytest.mark.parametrize("rows", [1, 176, 177, 1000])
def test_rows_in_pieces_are_mapped_as_all_at_once(rows: int) -> None:
    layers = EnsemblePerceptron(3, 4, [16, 16], [2, 5], "silu")
    for layer in layers:
        layer.initialize("lecun_uniform", _generators(0, 1, 2))
    features = torch.randn(3, rows, 4)
    whole = layers(features)
    with torch.no_grad():
        found = layers(features)
    assert found.shape == (3, rows, 7)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("rows", [1, 500])
def test_bfloat16_rounds_what_is_between_the_hidden_layers(separate: bool, rows: int) -> None:
    network, inputs = _network(activation="tanh", separate=separate), torch.randn(3, rows, 4)
    with torch.no_grad():
        exact = network.outputs(inputs)
        network.use_bfloat16()
        found = network.outputs(inputs)
        expected = []
        for perceptron in network.perceptrons:
            first, middle, last = perceptron
            assert first.weight.dtype == last.weight.dtype == torch.float32
            assert middle.weight.dtype == torch.bfloat16
            # Sums of six products: in float64 they are what bfloat16's own come to before rounding.
            features = (inputs @ first.weight + first.bias).tanh().bfloat16().double()
            features = features @ middle.weight.double() + middle.bias.double()
            features = features.bfloat16().tanh().float()
            expected.append(features @ last.weight + last.bias)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    # A sum that lies near the middle of two numbers may be rounded to either.
    torch.testing.assert_close(found, torch.cat(expected, -1), rtol=0, atol=0.02)
    assert (found - torch.cat(expected, -1)).abs().median() < 1e-5


def test_with_one_hidden_layer_bfloat16_changes_nothing() -> None:
    network = EnsembleNetwork(2, 4, (6,), Head("variance", 2))
    network.initialize("lecun_uniform", _generators(0, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.use_bfloat16()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separate", [False, True])
def test_a_members_gradient_touches_no_other_member(kind: str, separate: bool) -> None:
    network = _network(kind, separate=separate)
    prediction = network(torch.randn(3, 7, 4))
    (prediction.mean[1].sum() + prediction.covariance[1].sum()).backward()
    for parameter in network.parameters():
        assert parameter.grad[[0, 2]].count_nonzero() == 0
        assert parameter.grad[1].count_nonzero() > 0


@pytest.mark.parametrize("separate", [False, True])
def test_separate_networks_share_no_weight(separate: bool) -> None:
    network = _network(separate=separate)
    network(torch.randn(3, 7, 4)).variance.sum().backward()
    first_of_the_mean = network.perceptrons[0][0].weight
    assert bool(first_of_the_mean.grad.any()) != separate
    network(torch.randn(3, 7, 4)).mean.sum().backward()
    assert first_of_the_mean.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind: str) -> None:
    network = _network(kind, activation="tanh", separate=True).double()
    inputs = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)

    def outputs(inputs: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        names = [name for name, _ in network.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        distribution = torch.func.functional_call(network, given, (inputs,))
        return distribution.mean, distribution.covariance

    assert torch.autograd.gradcheck(outputs, (inputs, *network.parameters()), fast_mode=True)


@pytest.mark.parametrize(
    ("kind", "blocks", "bound"),
    [
        ("xavier_uniform", (40,), math.sqrt(6 / (50 + 40))),
        # Mean and variance are two maps to 20 outputs each, not one to 40.
        ("xavier_uniform", (20, 20), math.sqrt(6 / (50 + 20))),
        ("lecun_uniform", (40,), math.sqrt(3 / 50)),
        ("lecun_uniform", (20, 20), math.sqrt(3 / 50)),
    ],
)
def test_initial_weights_are_uniform_within_the_bound(
    kind: str, blocks: tuple[int, ...], bound: float
) -> None:
    layer = EnsembleLinear(4, 50, blocks)
    with torch.no_grad():
        layer.bias.fill_(1)
    layer.initialize(kind, _generators(0, 1, 2, 3))
    assert layer.bias.count_nonzero() == 0
    for weight in layer.weight.detach():
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(float(weight.mean())) < 0.05 * bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_every_block_has_a_bound_of_its_own() -> None:
    layer = EnsembleLinear(1, 50, (20, 200))
    layer.initialize("xavier_uniform", _generators(0))
    narrow, wide = layer.weight.detach().abs().split((20, 200), 2)
    assert 0.99 * math.sqrt(6 / 70) < narrow.max() <= math.sqrt(6 / 70)
    assert 0.99 * math.sqrt(6 / 250) < wide.max() <= math.sqrt(6 / 250)


def test_initial_weights_follow_from_the_generator_and_differ_between_members() -> None:
    first, again, other = (_untouched(*seeds) for seeds in ((1, 2, 3), (1, 2, 3), (4, 5, 6)))
    for name, tensor in first.named_parameters():
        assert torch.equal(tensor, again.get_parameter(name))
        if name.endswith("weight"):
            assert not torch.equal(tensor, other.get_parameter(name))
            assert not torch.equal(tensor[0], tensor[1])


def test_a_members_initial_weights_follow_from_its_own_generator() -> None:
    """So that members can be trained apart."""
    whole, part = _untouched(1, 2, 3), _untouched(3, 1)
    for name, tensor in whole.named_parameters():
        assert torch.equal(tensor[[2, 0]], part.get_parameter(name))


def _untouched(*seeds: int) -> EnsembleNetwork:
    network = EnsembleNetwork(len(seeds), 4, (6, 5), Head("variance", 2), separate=True)
    network.initialize("lecun_uniform", _generators(*seeds))
    return network


def test_weights_of_float64_are_drawn_alike() -> None:
    single, double = EnsembleLinear(2, 5, (4,)), EnsembleLinear(2, 5, (4,)).double()
    for layer in (single, double):
        layer.initialize("lecun_uniform", _generators(0, 1))
    assert torch.equal(single.weight, double.weight.float())
    assert not torch.equal(single.weight.double(), double.weight)


def test_the_head_is_initialised_as_two_maps() -> None:
    network = EnsembleNetwork(1, 4, (50,), Head("variance", 20))
    network.initialize("xavier_uniform", _generators(0))
    assert network.perceptrons[0][-1].weight.abs().max() > math.sqrt(6 / (50 + 40))


def test_no_hidden_layer_is_a_linear_map() -> None:
    network = EnsembleNetwork(2, 3, (), Head("mean", 1))
    network.initialize("lecun_uniform", _generators(0, 1))
    inputs = torch.randn(5, 3)
    weight = network.perceptrons[0][0].weight[1]
    torch.testing.assert_close(network(inputs).mean[1], inputs @ weight)
