"""The two ways of replacing only the samples beyond a bound: picked on a CPU, masked on a GPU."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from dynlearn.config.choices import TrustRegionMetric
from dynlearn.distributions.gaussian import Gaussian
from dynlearn.trust_region import TrustRegion, bound
from dynlearn.trust_region.bound import pull, replace_masked, replace_picked

MakeGaussian = Callable[..., Gaussian]


def test_pull_moves_what_is_beyond_and_keeps_what_is_within() -> None:
    new, old = torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.zeros(2, 2)
    pulled = pull(new, old, new.square().sum(-1), 1.0)
    torch.testing.assert_close(pulled, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


@pytest.mark.parametrize("metric", get_args(TrustRegionMetric))
def test_masked_is_picked_in_values_and_gradients(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_gaussian("diagonal", 3, 1)
    new = make_gaussian("diagonal", 3, 0, scale=4.0)
    new.mean[0], new.variance[0] = old.mean[0], old.variance[0]
    new.variance[1, 1] = math.nan
    region = TrustRegion(metric, 0.1, 0.1)

    def run() -> list[Tensor]:
        leaf = new.apply(lambda tensor: tensor.clone().requires_grad_())
        projected = region.project(leaf, old)
        (projected.mean.sum() + projected.variance.square().sum()).backward()
        gradients = leaf.mean.grad, leaf.variance.grad
        return [projected.mean.detach(), projected.variance.detach(), *gradients]

    picked = run()
    calls = []

    def masked(value: Tensor, beyond: Tensor, *rest: object) -> Tensor:
        calls.append(beyond)
        return replace_masked(value, beyond, *rest)

    monkeypatch.setattr(bound, "replace_picked", masked)
    for expected, found in zip(picked, run(), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-10, atol=0)
        # NaN only where the sample's own variance brought it.
        assert found[2:].isfinite().all()
    assert len(calls) == 2
    assert calls[1].tolist()[:2] == [False, False]


def test_nothing_beyond_is_the_value_itself() -> None:
    value = torch.ones(2, 3)
    assert replace_picked(value, torch.zeros(2, dtype=torch.bool), torch.clone, value) is value
