"""The configuration of a server."""

from typing import Literal

from pydantic import Field

from dynlearn.config.base import PRECISION, Config, Names
from dynlearn.config.choices import ActionsOutside, Device, PredictionPrecision


class ServeConfig(Config):
    """Serve a model over HTTP in the Open Inference Protocol v2."""

    model: Names = Field(
        (), description="models: NAME, NAME/VERSION or NAME@ALIAS, commas between; absent: all"
    )
    host: str = Field("127.0.0.1", description="address to listen on; others need tokens")
    allowed_hosts: Names = Field(
        (), description="what else callers without tokens may call the server, commas between"
    )
    forwarded_allow_ips: Names = Field(
        (), description="addresses of proxies whose X-Forwarded-For is believed, commas between"
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path under which a proxy shows the server, such as /dynlearn",
    )
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=PRECISION)
    replicas: int | None = Field(
        None, ge=1, le=1000, description="serve from up to so many processes, with Ray Serve"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="torch's threads; absent: one a processor"
    )
    batch_rows: int = Field(
        4096, ge=1, description="predictions that wait are merged up to so many rows; 1: never"
    )
    batch_wait_ms: float = Field(
        0.0, ge=0, le=1000, description="how long to wait for more rows, in milliseconds"
    )
    actions_outside: ActionsOutside = Field(
        "clip", description="what becomes of actions outside their bounds"
    )
    allow_unchecked: bool = Field(
        False, description="serve versions without checksums.json, whose damage is not seen"
    )
    memory_limit_gib: float = Field(
        4.0, gt=0, description="for the weights of versions that are kept beside those served"
    )
    max_pending: int = Field(1024, ge=1, description="most requests that wait; more get 503")
    max_connections: int = Field(
        1000, ge=1, description="open at once, within the system's limit; more get 503"
    )
    max_body_bytes: int = Field(64 * 2**20, ge=1, description="largest body, after decompression")
    max_json_bytes: int = Field(
        4 * 2**20, ge=1, description="largest JSON of a body; tensors in binary come beside it"
    )
    max_bytes_under_way: int = Field(
        512 * 2**20, ge=1, description="of all bodies at once; more get 503"
    )
    max_answer_bytes: int = Field(512 * 2**20, ge=1, description="largest answer")
    max_rows: int = Field(1_000_000, ge=1, description="most rows in one request")
    max_row_steps: int = Field(
        20_000_000, ge=1, description="most rows of a rollout times its steps, in one request"
    )
    grace_seconds: float = Field(
        10.0, ge=0, le=3600, description="for requests under way when the server is to end"
    )
    log: Literal["errors", "text", "json"] = Field(
        "errors", description="what to write of each request"
    )
