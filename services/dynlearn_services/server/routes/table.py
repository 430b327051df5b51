"""The table of routes: all that can be asked of the server, and by whom.

The router, the guard and the page of the API read this table, and there is no other.
"""

from dynlearn.protocol.documents import ResponseDocument
from dynlearn.protocol.metadata import ModelMetadata
from dynlearn_services.server.calls.models import ModelReady, describe_model, model_ready
from dynlearn_services.server.calls.parameters import PredictParameters, RolloutParameters
from dynlearn_services.server.calls.repository import (
    IndexRequest,
    VersionDocument,
    index,
    load,
    unload,
)
from dynlearn_services.server.calls.server import (
    Live,
    Ready,
    ServerMetadata,
    describe_server,
    live,
    metrics,
    ready,
)
from dynlearn_services.server.calls.tensors import infer, rollout
from dynlearn_services.server.http.answers import Nothing
from dynlearn_services.server.routes.route import Route, TensorBody

PAGE_FILES = "/docs-files"
"""Where the files are that the page of the API consists of."""

_INFER = """Predict next observations.

Inputs: `observation` [N, O] and `action` [N, A] (integers [N] where actions are discrete); \
optionally `member`, integers [N]: which member alone answers each row, at a fraction of the work; \
and `context` [N, G], the goal of a learned reward. Outputs: those of the model's metadata, in \
JSON or as binary tensors."""

_ROLLOUT = """Imagine what action sequences lead to, and judge them.

Inputs: `observations` [S, O], `actions` [S, P, H, A] (integers [S, P, H] where actions are \
discrete), and `context` [S, G], such as the goal, where the reward needs one. Outputs: `returns` \
and `return_std` [S, P], which need a reward, `trajectory_mean` and `trajectory_variance` \
[S, P, H, O], `trajectory_covariance` [S, P, H, O, O], `particles` [S, P, N, H, O]. A return that \
is not finite is given as the lowest float32."""

_OF_A_MODEL = ("/models/{name}", "/models/{name}/versions/{version}")

TABLE: tuple[Route, ...] = (
    Route("GET", "/v2", "read", describe_server, ServerMetadata, tag="server"),
    Route("GET", "/v2/health/live", None, live, Live, tag="server"),
    Route("GET", "/v2/health/ready", None, ready, Ready, tag="server"),
    Route("GET", "/metrics", "read", metrics, "text/plain", tag="server"),
    *(
        route
        for of_a_model in _OF_A_MODEL
        for route in (
            Route("GET", f"/v2{of_a_model}", "read", describe_model, ModelMetadata, tag="models"),
            Route("GET", f"/v2{of_a_model}/ready", "read", model_ready, ModelReady, tag="models"),
            Route(
                "POST",
                f"/v2{of_a_model}/infer",
                "read",
                infer,
                ResponseDocument,
                TensorBody(PredictParameters, "infer"),
                "models",
                _INFER,
            ),
            Route(
                "POST",
                f"/v1{of_a_model}/rollout",
                "read",
                rollout,
                ResponseDocument,
                TensorBody(RolloutParameters, "rollout"),
                "models",
                _ROLLOUT,
            ),
        )
    ),
    Route(
        "POST",
        "/v2/repository/index",
        "read",
        index,
        [VersionDocument],
        IndexRequest,
        "repository",
        "List all versions of all models, or those in memory where `ready` is true.",
    ),
    Route(
        "POST",
        "/v2/repository/models/{name}/load",
        "admin",
        load,
        Nothing,
        tag="repository",
        description="Serve a model's champion.",
    ),
    Route(
        "POST",
        "/v2/repository/models/{name}/unload",
        "admin",
        unload,
        Nothing,
        tag="repository",
        description="Serve a model no more.",
    ),
    Route("GET", "/docs", None, None, "text/html"),
    Route("GET", "/openapi.json", None, None, "application/json"),
    Route("GET", f"{PAGE_FILES}/{{file}}", None, None, "application/octet-stream"),
)
