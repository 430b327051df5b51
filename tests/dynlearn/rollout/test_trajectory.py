import numpy as np
import torch

from dynlearn.rollout.trajectory import Trajectory


def test_moments_of_particles() -> None:
    particles = torch.randn((2, 3, 6, 4, 2), generator=torch.Generator().manual_seed(0))
    trajectory = Trajectory(particles)
    np.testing.assert_allclose(trajectory.mean, particles.numpy().mean(2), atol=1e-6)
    for place in np.ndindex(2, 3, 4):
        start, candidate, step = place
        expected = np.cov(particles[start, candidate, :, step].T, bias=True)
        np.testing.assert_allclose(trajectory.covariance[place], expected, atol=1e-6)
    assert Trajectory(particles[:, :, :1]).covariance.count_nonzero() == 0
