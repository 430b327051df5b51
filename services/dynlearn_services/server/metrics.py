"""What the server counts and times, for Prometheus."""

import time
from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dynlearn_services.server.figures import Family, read_figures

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
_MODEL = ("model", "version")


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._counted: dict[str, set[str]] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._requests = Counter(
            "dynlearn_inference_requests_total",
            "Requests for predictions and rollouts, by outcome: ok, or the HTTP status of an error",
            (*_MODEL, "outcome"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "dynlearn_request_seconds",
            "From a request's first byte to its answer",
            ("model", "kind"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._rows = Counter(
            "dynlearn_inference_rows_total", "Rows predicted", _MODEL, registry=registry
        )
        self._batches = Counter(
            "dynlearn_inference_batches_total",
            "Batches computed; rows by batches is the mean size",
            _MODEL,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "dynlearn_batch_rows", "Rows of a batch", ("model",), buckets=_ROWS, registry=registry
        )
        self._queue_seconds = Histogram(
            "dynlearn_queue_seconds",
            "How long requests wait for their turn",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._inference_seconds = Histogram(
            "dynlearn_inference_seconds",
            "How long a batch or a rollout takes to compute",
            ("model", "kind"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "dynlearn_error_answers_total",
            "Answers that are errors, of whatever path, by HTTP status",
            ("status",),
            registry=registry,
        )
        self._served = Gauge(
            "dynlearn_served_version",
            "The version served by default",
            ("model",),
            registry=registry,
        )
        self._loaded = Gauge(
            "dynlearn_loaded_versions", "Versions in memory", ("model",), registry=registry
        )
        self._pending = Gauge(
            "dynlearn_pending_requests", "Requests that wait for their turn", registry=registry
        )

    def watch_pending(self, count: Callable[[], int]) -> None:
        """Take the number of waiting requests from a function."""
        self._pending.set_function(count)

    def observe_request(
        self, model: str, version: str, kind: str, outcome: str, seconds: float
    ) -> None:
        """Count an answer."""
        self._counted.setdefault(model, set()).add(version)
        self._requests.labels(model, version, outcome).inc()
        self._request_seconds.labels(model, kind).observe(seconds)

    def observe_error(self, status: int) -> None:
        """Count an answer that is an error."""
        self._errors.labels(str(status)).inc()

    def observe_batch(self, model: str, version: str, rows: int, started: float) -> None:
        """Count a batch that began at a time of `time.monotonic` and has been computed."""
        self._counted.setdefault(model, set()).add(version)
        self._rows.labels(model, version).inc(rows)
        self._batches.labels(model, version).inc()
        self._batch_rows.labels(model).observe(rows)
        self._inference_seconds.labels(model, "predict").observe(time.monotonic() - started)

    def observe_task(self, model: str, started: float) -> None:
        """Count a rollout or a draw of samples likewise."""
        self._inference_seconds.labels(model, "task").observe(time.monotonic() - started)

    def observe_queue(self, model: str, seconds: float) -> None:
        """Count how long a request waited."""
        self._queue_seconds.labels(model).observe(seconds)

    def observe_versions(self, model: str, served: str | None, loaded: Sequence[str]) -> None:
        """Say which version is served, and which are in memory.

        What was counted of others is dropped, or the page would grow with each that is published.
        """
        for version in self._counted.get(model, set()).difference(loaded):
            self._counted[model].discard(version)
            for counter in (self._requests, self._rows, self._batches):
                counter.remove_by_labels({"model": model, "version": version})
        if served is not None:
            self._served.labels(model).set(int(served))
        self._loaded.labels(model).set(len(loaded))
        if not loaded:
            for gauge in (self._served, self._loaded):
                gauge.remove_by_labels({"model": model})

    def page(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def figures(self) -> list[Family]:
        """Return what has been counted, to be sent to other replicas."""
        return read_figures(self._registry)
