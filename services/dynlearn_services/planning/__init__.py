"""Playing real episodes with a planner over a learned model."""
