import numpy as np
import pytest
import torch

from dynlearn.errors import CorruptData
from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec
from dynlearn.training.training_data import Samples, gather, standardise, subset

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


def test_samples_that_come_in_parts_are_the_same_in_float32() -> None:
    parts = [
        Samples(np.full((rows, 2), rows / 3), np.full((rows, 1), -rows), np.array([rows]))
        for rows in (3, 1, 2)
    ]
    whole = gather(parts, most=10)
    assert whole.inputs.dtype == whole.targets.dtype == np.float32
    assert whole.inputs[:, 0].tolist() == [1, 1, 1, np.float32(1 / 3), *[np.float32(2 / 3)] * 2]
    assert whole.targets[:, 0].tolist() == [-3, -3, -3, -1, -2, -2]
    assert whole.magnitude.tolist() == [3]
    with pytest.raises(CorruptData, match="expected at least one transition"):
        gather([], most=10)


def test_a_fixed_part_of_the_samples_is_drawn_where_there_are_many() -> None:
    rows = np.arange(100.0)[:, None]
    samples = Samples(rows, -rows, np.array([99.0]))
    assert subset(samples, 100, seed=0) is samples
    some = subset(samples, 10, seed=0)
    assert (np.diff(some.inputs[:, 0]) > 0).all()
    assert (some.targets == -some.inputs).all()
    assert subset(samples, 10, seed=0).inputs.tolist() == some.inputs.tolist()
    assert subset(samples, 10, seed=1).inputs.tolist() != some.inputs.tolist()


def test_float32_samples_are_standardised_where_they_are() -> None:
    def single(samples: Samples) -> Samples:
        parts = [values.astype(np.float32) for values in (samples.inputs, samples.targets)]
        return Samples(*parts, samples.magnitude)

    training, validation = single(TRAINING), single(VALIDATION)
    data, checksum = standardise(_regressor(), training, validation, torch.float32)
    assert data.inputs.data_ptr() == training.inputs.ctypes.data
    expected, same = standardise(_regressor(), TRAINING, VALIDATION, torch.float32)
    assert checksum == same
    for name, tensor in vars(expected).items():
        assert torch.equal(getattr(data, name), tensor)
