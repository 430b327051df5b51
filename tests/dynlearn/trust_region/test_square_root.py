import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from dynlearn.trust_region.square_root import lower_root, symmetric_root


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _ill_conditioned(size: int, spread: float) -> Tensor:
    """Return a lower root whose singular values lie ``spread`` apart."""
    left, right = torch.linalg.qr(_random(2, size, size)).Q
    values = spread ** torch.linspace(-0.5, 0.5, size, dtype=torch.float64)
    return torch.linalg.qr(((left * values) @ right).T).R.T


@pytest.mark.parametrize("size", [1, 2, 5, 25])
def test_the_symmetric_root_is_scipys(size: int) -> None:
    root = _random(3, size, size) + 2 * torch.eye(size)
    found = symmetric_root(root)
    torch.testing.assert_close(found, found.mT)
    for sample in range(3):
        expected = linalg.sqrtm((root[sample] @ root[sample].T).numpy())
        np.testing.assert_allclose(found[sample], expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("columns", [4, 9])
def test_the_lower_root_is_choleskys(columns: int) -> None:
    root = _random(3, 4, columns)
    found = lower_root(root)
    torch.testing.assert_close(found, torch.linalg.cholesky(root @ root.mT))
    assert torch.equal(found, found.tril())


def test_the_least_eigenvalue_survives_a_condition_number_of_1e16() -> None:
    root = _ill_conditioned(6, 1e8)
    expected = torch.linalg.svdvals(root)
    for found in (symmetric_root(root), lower_root(root)):
        torch.testing.assert_close(torch.linalg.svdvals(found), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("function", [symmetric_root, lower_root])
@pytest.mark.parametrize(
    "root",
    [
        _random(2, 3, 3),
        torch.eye(3, dtype=torch.float64),
        5 * torch.linalg.qr(_random(3, 3)).Q,
        torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)),
    ],
    ids=["distinct", "identity", "one eigenvalue", "two equal"],
)
def test_gradients_are_those_of_finite_differences(
    function: Callable[[Tensor], Tensor], root: Tensor
) -> None:
    assert torch.autograd.gradcheck(function, root.clone().requires_grad_())


def test_a_wide_roots_gradient() -> None:
    assert torch.autograd.gradcheck(lower_root, _random(2, 3, 5).requires_grad_())


def test_the_symmetric_roots_gradient_at_distinct_eigenvalues_is_that_of_eigh() -> None:
    root = _random(4, 4).requires_grad_()
    weights = _random(4, 4, seed=1)
    eigenvalues, basis = torch.linalg.eigh(root @ root.T)
    plain = (basis * eigenvalues.sqrt()) @ basis.T
    (expected,) = torch.autograd.grad((weights * plain).sum(), root)
    (found,) = torch.autograd.grad((weights * symmetric_root(root)).sum(), root)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_sample_that_is_not_finite_harms_no_other(poison: float) -> None:
    root = _random(3, 2, 2)
    root[1, 0, 0] = poison
    leaf = root.clone().requires_grad_()
    found = symmetric_root(leaf)
    assert found[1].isnan().all()
    sound = symmetric_root(root[[0, 2]])
    torch.testing.assert_close(found[[0, 2]].detach(), sound)
    found[[0, 2]].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad[1].eq(0).all()
