import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.distributions.student_t import StudentT
from dynlearn.errors import InvalidInput
from dynlearn.objectives import StudentTNLL, make_objective

E, B, D = 2, 5, 3
IDS = torch.arange(B).expand(E, B)


def _leaves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4, E, B, D, generator=generator, dtype=torch.float64)
    leaves = (draws[0], 1.01 + draws[1].exp(), (2 * draws[2]).exp())
    mean, concentration, rate = (leaf.clone().requires_grad_() for leaf in leaves)
    return mean, concentration, rate, draws[3]


def test_by_name() -> None:
    objective = make_objective(TrainConfig(dataset="d", model="m", objective="student_t"))
    assert isinstance(objective, StudentTNLL)
    assert objective.head("diagonal") == "student_t"
    assert objective.components == 0
    with pytest.raises(InvalidInput, match="expected a diagonal covariance with student_t"):
        objective.head("full")


def test_loss_and_gradients_are_those_of_torchs_student_t() -> None:
    mean, concentration, rate, target = _leaves()
    loss = StudentTNLL().loss(StudentT(mean, concentration, rate), target, IDS)
    plain = torch.distributions.StudentT(
        2 * concentration, mean, (rate / concentration).sqrt()
    ).log_prob(target)
    expected = -plain.sum(2).mean(1)
    torch.testing.assert_close(loss, expected)
    leaves = (mean, concentration, rate)
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), leaves), torch.autograd.grad(expected.sum(), leaves)
    )


def test_the_gradients_are_finite_differences() -> None:
    *leaves, target = _leaves()
    assert torch.autograd.gradcheck(
        lambda *parts: StudentTNLL().loss(StudentT(*parts), target, IDS), leaves
    )


@given(
    a=st.floats(1.001, 1000),
    exponent=st.floats(-11, 6),
    error=st.floats(-1e6, 1e6),
)
def test_float32_is_finite_over_the_heads_ranges(a: float, exponent: float, error: float) -> None:
    leaves = [
        torch.full((1, 1, 1), value, requires_grad=True) for value in (error, a, 10**exponent)
    ]
    loss = StudentTNLL().loss(StudentT(*leaves), torch.zeros(1, 1, 1), torch.zeros(1, 1))
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), leaves))
