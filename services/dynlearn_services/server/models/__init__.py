"""The model versions in memory."""
