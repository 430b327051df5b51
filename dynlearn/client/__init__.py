"""Clients of a served model: `DynamicsClient`, and `AsyncDynamicsClient` for an event loop.

They need numpy, httpx and pydantic alone.
"""

from dynlearn.client.answers import RemotePrediction, RemoteRollout, RemoteSample, RemoteSpec
from dynlearn.client.asynchronous import AsyncDynamicsClient
from dynlearn.client.blocking import DynamicsClient

__all__ = [
    "AsyncDynamicsClient",
    "DynamicsClient",
    "RemotePrediction",
    "RemoteRollout",
    "RemoteSample",
    "RemoteSpec",
]
