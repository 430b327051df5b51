import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.rollout.draws import ChunkDraws, draw_members


def _draws(sequences: int, particles: int, seed: int = 0) -> ChunkDraws:
    return ChunkDraws(sequences, particles, seed, chunk=0)


@pytest.mark.parametrize("most", [1, 250_000, 2**20])
def test_redrawn_particles_have_the_moments_of_those_before(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four particles in three dimensions, the third of which is the sum of the others."""
    monkeypatch.setattr("dynlearn.rollout.draws._MAX_REDRAWN", most)
    before = torch.tensor([[0.0, 1.0, 1.0], [2.0, -1.0, 1.0], [5.0, 0.5, 5.5], [1.0, 3.0, 4.0]])
    after = _draws(50_000, 4).redraw(before.expand(50_000, -1, -1))
    assert after.shape == (50_000, 4, 3)
    expected = np.cov(before.T, bias=True)
    for place in after.unbind(1):
        np.testing.assert_allclose(place.mean(0), before.mean(0), atol=0.05)
        np.testing.assert_allclose(np.cov(place.T), expected, rtol=0.03, atol=0.03)
    # The particles are independent of one another, and a covariance without full rank is kept.
    between = np.corrcoef(after[:, :2].flatten(1).T)[:3, 3:]
    np.testing.assert_allclose(between, 0, atol=0.02)
    torch.testing.assert_close(after[..., 2], after[..., 0] + after[..., 1], atol=1e-4, rtol=0)


def test_each_sequence_is_redrawn_from_its_own_moments() -> None:
    before = torch.tensor([[[0.0], [0.0]], [[9.0], [11.0]]])
    after = _draws(2, 2).redraw(before)
    assert after[0].tolist() == [[0.0], [0.0]]
    assert (after[1] - 10).abs().max() < 6
    assert after[1].std() > 0


def test_one_particle_stays_where_it_is() -> None:
    before = torch.randn(5, 1, 3)
    assert torch.equal(_draws(5, 1).redraw(before), before)


@pytest.mark.parametrize("members", [1, 3, 5, 64])
def test_each_member_has_places_enough_and_no_two_rows_share_one(members: int) -> None:
    draws = _draws(6, 4)
    width = draws.width(members)
    member, turn = draws.cards(50, members)
    assert member.shape == turn.shape == (50, 24)
    assert members * width - members < 24 <= members * width
    assert int(member.min()) >= 0
    assert int(member.max()) < members
    assert int(turn.max()) < width
    for places in (member * width + turn).tolist():
        assert len(set(places)) == 24
    assert draws.noise(50, members, 7).shape == (50, members, width, 7)


@given(
    sequences=st.integers(1, 9),
    particles=st.integers(1, 7),
    members=st.integers(1, 6),
    size=st.integers(1, 5),
    parts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_a_steps_draws_do_not_depend_on_how_many_are_drawn_at_once(
    sequences: int, particles: int, members: int, size: int, parts: list[int]
) -> None:
    whole, stepwise = _draws(sequences, particles, 3), _draws(sequences, particles, 3)
    cards, noise = whole.cards(sum(parts), members), whole.noise(sum(parts), members, size)
    # The order of kinds does not matter either.
    noises = [stepwise.noise(steps, members, size) for steps in parts]
    dealt = [stepwise.cards(steps, members) for steps in parts]
    assert torch.equal(torch.cat(noises), noise)
    for part, together in zip(zip(*dealt, strict=True), cards, strict=True):
        assert torch.equal(torch.cat(part), together)


def test_noise_is_normal_and_every_chunk_has_its_own() -> None:
    noise = _draws(7, 5).noise(4000, 3, 5)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    other = ChunkDraws(7, 5, seed=0, chunk=1).noise(4000, 3, 5)
    assert abs(np.corrcoef(noise.flatten(), other.flatten())[0, 1]) < 0.01


def test_samples_are_drawn_from_the_members_that_may_answer() -> None:
    member, noise = draw_members(3000, [1, 4], 2, seed=0)
    assert set(member.tolist()) == {1, 4}
    assert int((member == 1).sum()) == pytest.approx(1500, abs=150)
    assert noise.shape == (3000, 2)
    again, _ = draw_members(3000, [1, 4], 2, seed=0)
    assert torch.equal(member, again)
