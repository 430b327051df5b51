"""What a planner's author writes first: FastAPI, pydantic models, ``tolist``.

The answer is a dict, which FastAPI walks in Python, number by number; or, of an author who knows
that, a model, which pydantic writes.
"""

import socket
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from dynlearn.models.dynamics import DynamicsModel
from dynlearn.registry import Registry


class Request(BaseModel):
    """Rows to predict."""

    observation: list[list[float]]
    action: list[list[float]]


class Answer(BaseModel):
    """What comes after them."""

    mean: list[list[float]]
    variance: list[list[float]]


def serve_plainly(connection: Connection, folder: str, columns: int) -> None:
    """Serve the registry's model of so many columns, and send the address."""
    registry = Registry(Path(folder))
    models = [DynamicsModel.load(registry.resolve(name).folder) for name in registry.names()]
    (model,) = (each for each in models if each.spec.observation_size == columns)
    app = FastAPI()

    # As without an annotation.
    @app.post("/predict", response_model=None)
    def predict(request: Request) -> dict[str, list[list[float]]]:
        prediction = model.predict(request.observation, request.action)
        return {"mean": prediction.mean.tolist(), "variance": prediction.variance.tolist()}

    @app.post("/predict-typed")
    def predict_typed(request: Request) -> Answer:
        return Answer(**predict(request))

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run([listener])
