import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.models.scaling import Moments, Scaler

exponents = st.floats(-8, 8)


def _fitted(values: object) -> Scaler:
    values = torch.as_tensor(np.asarray(values))
    scaler = Scaler(values.shape[1])
    scaler.fit(values)
    return scaler


def test_statistics_of_two_columns() -> None:
    scaler = _fitted([[0.0, 10.0], [2.0, 50.0]])
    assert scaler.mean.tolist() == [1.0, 30.0]
    assert scaler.std.tolist() == [1.0, 20.0]
    assert scaler.standardise(torch.tensor([[2.0, 10.0]])).tolist() == [[1.0, -1.0]]
    assert scaler.restore(torch.tensor([[1.0, -1.0]])).tolist() == [[2.0, 10.0]]


@given(
    exponent=exponents,
    offset=st.floats(-1e3, 1e3),
    rows=st.integers(2, 50),
    seed=st.integers(0, 1000),
)
def test_every_scale_is_standardised_and_restored(
    exponent: float, offset: float, rows: int, seed: int
) -> None:
    draws = np.random.default_rng(seed).standard_normal((rows, 2))
    values = torch.from_numpy((draws + offset) * 10.0**exponent)
    scaler = _fitted(values)
    standardised = scaler.standardise(values)
    spread = values.std(0, correction=0) / 10.0**exponent
    # Float32 statistics resolve the offset to 1e-7 of it.
    slack = float(1e-6 * (1 + abs(offset)) / spread.min())
    np.testing.assert_allclose(standardised.mean(0), 0, atol=slack)
    np.testing.assert_allclose(standardised.std(0, correction=0), 1, rtol=1e-5)
    np.testing.assert_allclose(scaler.restore(standardised), values, rtol=1e-6)


@given(
    constant=st.one_of(st.just(0.0), exponents.map(lambda e: -(10.0**e))), rows=st.integers(1, 9)
)
def test_a_constant_column_or_a_single_sample_standardises_to_zero(
    constant: float, rows: int
) -> None:
    values = torch.full((rows, 1), constant, dtype=torch.float32)
    scaler = _fitted(values)
    assert scaler.std.tolist() == [1.0]
    np.testing.assert_allclose(scaler.standardise(values), 0, atol=1e-6)
    np.testing.assert_allclose(scaler.restore(torch.zeros(1, 1)), constant, rtol=1e-6)


def test_a_constant_target_is_restored_whatever_the_network_answers() -> None:
    values = torch.tensor([[0.0, 0.05, 5e6]]).expand(4, 3)
    scaler = Scaler(3)
    scaler.fit(values, of_constant=None)
    assert scaler.standardise(values[0]).tolist() == [0, 0, 0]
    restored = scaler.restore(torch.tensor([0.01, -0.01, 0.01]))
    torch.testing.assert_close(restored, values[0], rtol=0, atol=1e-15)


def test_rounding_of_a_constant_is_no_spread() -> None:
    around = np.nextafter(np.float32(0.525), np.float32([0, 1, 2]))[:, None]
    assert _fitted(around).std.tolist() == [1.0]


def test_a_small_spread_beside_a_large_offset_is_data() -> None:
    values = 1000 + 0.01 * np.array([[-1.0], [1.0]])
    np.testing.assert_allclose(_fitted(values).std, [0.01], rtol=1e-6)


@given(exponent=st.floats(-46, -8))
def test_the_smallest_variance_of_a_tiny_column_stays_above_zero(exponent: float) -> None:
    values = 10.0**exponent * np.array([[-1.0], [1.0]])
    scaler = _fitted(values)
    assert scaler.standardise(torch.from_numpy(values)).isfinite().all()
    zero, least = torch.zeros(1), torch.tensor([1e-8])
    diagonal = DiagonalGaussian(zero, least).affine(scaler.std, zero)
    assert diagonal.variance >= torch.finfo(torch.float32).tiny
    full = FullGaussian(zero, least.sqrt().unsqueeze(0)).affine(scaler.std, zero)
    assert full.variance >= torch.finfo(torch.float32).tiny


def test_the_statistics_are_saved() -> None:
    assert set(Scaler(2).state_dict()) == {"mean", "std"}


@given(
    rows=st.integers(1, 400),
    block=st.integers(1, 100),
    offset=st.sampled_from([0.0, 1.0, -1e6]),
    seed=st.integers(0, 100),
)
def test_moments_of_blocks_are_those_of_the_whole(
    rows: int, block: int, offset: float, seed: int
) -> None:
    values = offset + np.random.default_rng(seed).standard_normal((rows, 2))
    moments = Moments(2)
    for first in range(0, rows, block):
        moments.add(torch.from_numpy(values[first : first + block]))
    assert moments.count == rows
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, values.var(0), rtol=1e-9, atol=1e-20)
    np.testing.assert_array_equal(moments.largest, np.abs(values).max(0))


def test_a_scaler_needs_no_copy_of_all_values_in_float64() -> None:
    values = torch.arange(400_000, dtype=torch.float32).view(-1, 1)
    scaler = Scaler(1)
    scaler.fit(values)
    assert scaler.mean.tolist() == [199_999.5]
    np.testing.assert_allclose(scaler.std, np.sqrt((400_000**2 - 1) / 12), rtol=1e-7)
