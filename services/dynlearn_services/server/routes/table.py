"""The one table of routes: what the server answers, to whom, and with what.

The matcher, the check of roles and the API's page are made from it, and know of nothing else.
"""

from dataclasses import replace

from dynlearn.protocol.documents import RequestDocument, ResponseDocument
from dynlearn.protocol.metadata import ModelMetadata
from dynlearn_services.server.calls.parameters import PredictParameters, RolloutParameters
from dynlearn_services.server.routes import models, pages, repository, server, tensors
from dynlearn_services.server.routes.route import Route, Tensors


def _with_versions(route: Route) -> tuple[Route, Route]:
    """Return a route of a model, and the same of one of its versions."""
    path = route.path.replace("{name}", "{name}/versions/{version}")
    return route, replace(route, path=path)


ROUTES: tuple[Route, ...] = (
    Route("GET", pages.PAGE, None, pages.show_page, "Page", "text/html"),
    Route("GET", f"{pages.PAGE_FILES}/{{file}}", None, pages.show_file, "File", "*/*"),
    Route("GET", pages.DOCUMENT, None, pages.show_document, "Document", "application/json"),
    Route(
        "GET",
        "/v2",
        "read",
        server.describe_server,
        "Describe Server",
        server.ServerDocument,
        tag="server",
    ),
    Route("GET", "/v2/health/live", None, server.live, "Live", server.LiveDocument, tag="server"),
    Route(
        "GET", "/v2/health/ready", None, server.ready, "Ready", server.ReadyDocument, tag="server"
    ),
    Route("GET", "/metrics", "read", server.metrics, "Metrics", "text/plain", tag="server"),
    Route(
        "POST",
        "/v2/repository/index",
        "read",
        repository.index,
        "Index",
        repository.IndexDocument,
        repository.IndexRequest,
        "repository",
        "List all versions of all models, or those in memory where `ready` is true.",
    ),
    Route(
        "POST",
        "/v2/repository/models/{name}/load",
        "admin",
        repository.load,
        "Load",
        repository.EmptyDocument,
        tag="repository",
        description="Serve a model: the version that was configured, else its champion.",
    ),
    Route(
        "POST",
        "/v2/repository/models/{name}/unload",
        "admin",
        repository.unload,
        "Unload",
        repository.EmptyDocument,
        tag="repository",
        description="Serve a model no more.",
    ),
    *_with_versions(
        Route(
            "GET",
            "/v2/models/{name}",
            "read",
            models.describe_model,
            "Describe Model",
            ModelMetadata,
            tag="models",
        )
    ),
    *_with_versions(
        Route(
            "GET",
            "/v2/models/{name}/ready",
            "read",
            models.model_ready,
            "Model Ready",
            models.ModelReadyDocument,
            tag="models",
        )
    ),
    *_with_versions(
        Route(
            "POST",
            "/v2/models/{name}/infer",
            "read",
            tensors.infer,
            "Infer",
            Tensors(ResponseDocument),
            Tensors(RequestDocument, PredictParameters),
            "models",
            "Predict next observations.\n\nInputs: `observation` [N, O] and `action` [N, A] "
            "(integers [N] where actions are discrete); optionally `member`, integers [N]: which "
            "member alone answers each row, at a fraction of the work; and `context` [N, G], the "
            "goal of a learned reward. Outputs: those of the model's metadata, in JSON or as "
            "binary tensors.",
        )
    ),
    *_with_versions(
        Route(
            "POST",
            "/v1/models/{name}/rollout",
            "read",
            tensors.rollout,
            "Rollout",
            Tensors(ResponseDocument),
            Tensors(RequestDocument, RolloutParameters),
            "models",
            "Imagine what action sequences lead to, and judge them.\n\nInputs: `observations` "
            "[S, O], `actions` [S, P, H, A] (integers [S, P, H] where actions are discrete), and "
            "`context` [S, G], such as the goal, where the reward needs one. Outputs: `returns` "
            "and `return_std` [S, P], which need a reward, `trajectory_mean` and "
            "`trajectory_variance` [S, P, H, O], `trajectory_covariance` [S, P, H, O, O], "
            "`particles` [S, P, N, H, O]. A return that is not finite is given as the lowest "
            "float32.",
        )
    ),
)
