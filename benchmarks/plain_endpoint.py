"""What a planner's author writes first: FastAPI, pydantic models, ``tolist``."""

import socket
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from dynlearn.model import DynamicsModel
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

    @app.post("/predict")
    def predict(request: Request) -> Answer:
        prediction = model.predict(request.observation, request.action)
        return Answer(mean=prediction.mean.tolist(), variance=prediction.variance.tolist())

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run([listener])
