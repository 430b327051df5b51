"""Imagined trajectories, and what they are worth."""
