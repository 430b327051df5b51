"""Datasets in other people's formats."""
