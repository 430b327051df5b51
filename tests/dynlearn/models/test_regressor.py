from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec


def _regressor(**options: Any) -> EnsembleRegressor:
    """Two linear members of two inputs and one target: x - y and 10 x - 10 y, standardised."""
    spec = {"inputs": 2, "targets": 1, "members": 2, "hidden": (), "head": "variance", **options}
    regressor = EnsembleRegressor(RegressorSpec(**spec))
    with torch.no_grad():
        weight = regressor.network.perceptrons[0][0].weight
        weight[:, :, 0] = torch.tensor([[1.0, -1.0], [10.0, -10.0]])
        regressor.input_scaler.mean.copy_(torch.tensor([1.0, 2.0]))
        regressor.input_scaler.std.copy_(torch.tensor([1.0, 0.5]))
        regressor.target_scaler.mean.fill_(100)
        regressor.target_scaler.std.fill_(3)
    return regressor


# Standardised (2, 4), hence -2 and -20; a variance of one.
ROW = torch.tensor([[3.0, 4.0]])


@torch.inference_mode()
def test_answers_are_in_original_units() -> None:
    answer = _regressor()(ROW)
    assert answer.mean.tolist() == [[[100 - 6]], [[100 - 60]]]
    torch.testing.assert_close(answer.variance, torch.full((2, 1, 1), 9.0))


@torch.inference_mode()
def test_inputs_are_shared_or_each_members_own() -> None:
    regressor = _regressor()
    assert torch.equal(regressor(ROW.expand(2, 1, 2)).mean, regressor(ROW).mean)
    own = torch.stack((ROW, torch.tensor([[1.0, 2.0]])))
    assert regressor(own).mean.tolist() == [[[94]], [[100]]]


@torch.inference_mode()
def test_a_base_is_added() -> None:
    base = torch.tensor([[1000.0]])
    assert _regressor()(ROW, base).mean.tolist() == [[[1094]], [[1040]]]
    each = torch.tensor([[[1000.0]], [[2000.0]]])
    assert _regressor()(ROW, each).mean.tolist() == [[[1094]], [[2040]]]


@torch.inference_mode()
def test_draws_are_some_of_each_row_or_its_mean() -> None:
    regressor, rows = _regressor(), ROW.expand(2, 1, 2)
    assert regressor.draw(rows).tolist() == [[[[94]]], [[[40]]]]
    noise = torch.tensor([0.0, 1.0, -2.0]).view(1, 1, 3, 1).expand(2, 1, 3, 1)
    expected = torch.tensor([[94.0, 97.0, 88.0], [40.0, 43.0, 34.0]]).view(2, 1, 3, 1)
    torch.testing.assert_close(regressor.draw(rows, noise), expected)


@torch.inference_mode()
def test_a_subset_has_the_members_in_the_order_given() -> None:
    subset = _regressor().subset([1, 0, 1])
    assert subset.members == subset.spec.members == 3
    assert subset(ROW).mean.flatten().tolist() == [40, 94, 40]


def test_its_size_is_that_of_weights_and_scalers() -> None:
    # Of each member 2 × 2 weights, 2 biases and a residual variance; scalers of 2 and 1 numbers;
    # the least deviation.
    assert _regressor().nbytes == 4 * (2 * (4 + 2 + 1) + 2 * 2 + 2 * 1 + 1)


@pytest.mark.parametrize(
    "wrong",
    [{"inputs": 0}, {"targets": 0}, {"members": 257}, {"hidden": (0,)}, {"more": 1}],
    ids=str,
)
def test_a_spec_that_cannot_be_built_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegressorSpec(**{"inputs": 1, "targets": 1, "members": 1, "hidden": (), **wrong})
