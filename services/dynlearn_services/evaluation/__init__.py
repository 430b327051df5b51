"""Measuring a published model."""
