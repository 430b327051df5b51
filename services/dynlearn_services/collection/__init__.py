"""Collecting a dataset with Ray workers."""
