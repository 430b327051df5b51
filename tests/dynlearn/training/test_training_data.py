import numpy as np
import pytest
import torch

from dynlearn.errors import CorruptData
from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec
from dynlearn.training.training_data import Samples, standardise

TRAINING = Samples(
    np.array([[0.0, 5.0], [2.0, 5.0]]), np.array([[10.0], [30.0]]), np.array([2.0**20])
)
VALIDATION = Samples(np.array([[3.0, 6.0]]), np.array([[0.0]]), np.zeros(1))


def _regressor() -> EnsembleRegressor:
    return EnsembleRegressor(RegressorSpec(inputs=2, targets=1, members=1, hidden=()))


def test_all_samples_are_standardised_by_the_training_samples() -> None:
    regressor = _regressor()
    data, _ = standardise(regressor, TRAINING, VALIDATION, torch.float32)
    # The constant column keeps its scale.
    assert data.inputs.tolist() == [[-1, 0], [1, 0]]
    assert data.targets.tolist() == [[-1], [1]]
    assert data.validation_inputs.tolist() == [[2, 1]]
    assert data.validation_targets.tolist() == [[-2]]
    assert data.inputs.dtype == torch.float32
    assert regressor.target_scaler.mean.tolist() == [20]
    assert regressor.target_scaler.std.tolist() == [10]
    # Float32 numbers around 2**20 are an eighth apart.
    assert regressor.least_std.tolist() == [0.125]


def test_the_checksum_is_of_all_samples() -> None:
    def checksum(training: Samples, validation: Samples) -> str:
        return standardise(_regressor(), training, validation, torch.float64)[1]

    first = checksum(TRAINING, VALIDATION)
    assert first == checksum(TRAINING, VALIDATION)
    assert first != checksum(TRAINING, VALIDATION._replace(targets=np.array([[1.0]])))
    assert first != checksum(TRAINING._replace(targets=np.array([[10.0], [31.0]])), VALIDATION)


def test_a_large_constant_standardises_to_zero() -> None:
    inputs = np.array([[1_700_000_061.4, 0.0], [1_700_000_061.4, 1.0]])
    data, _ = standardise(_regressor(), TRAINING._replace(inputs=inputs), VALIDATION, torch.float32)
    assert data.inputs[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_in_float32_is_refused(bad: float) -> None:
    with pytest.raises(CorruptData, match="expected finite transitions"):
        standardise(
            _regressor(), TRAINING, VALIDATION._replace(targets=np.array([[bad]])), torch.float32
        )
