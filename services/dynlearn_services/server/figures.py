"""Figures: what one server has counted, in a form that travels, and the sum over several."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# A sample's name, and its labels.
Key = tuple[str, tuple[tuple[str, str], ...]]

_SUMMED = ("counter", "histogram")
_CREATED = "_created"


class Family(NamedTuple):
    """One metric: what it is called and means, its kind, and its samples."""

    name: str
    documentation: str
    kind: str
    samples: dict[Key, float]


def read_figures(registry: Collector) -> list[Family]:
    """Return what a registry of Prometheus' client holds."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for sample in metric.samples
            },
        )
        for metric in registry.collect()
    ]


def merge(
    living: Mapping[str, Iterable[Family]], gone: Iterable[Iterable[Family]] = ()
) -> list[Family]:
    """Return the figures of several servers as of one.

    What is counted is summed; what is measured is told of each, with its name as ``replica``.

    Args:
        living: by the servers' names.
        gone: of those that are no more; what they have counted is not to be lost, but for what
            the living do not count any longer.
    """
    merged: dict[str, Family] = {}
    for replica, families in living.items():
        for family in families:
            whole = merged.setdefault(family.name, family._replace(samples={}))
            if family.kind in _SUMMED:
                for key, value in family.samples.items():
                    _add(whole.samples, key, value)
            else:
                for (name, labels), value in family.samples.items():
                    whole.samples[name, (*labels, ("replica", replica))] = value
    for families in gone:
        for family in families:
            counted = merged.get(family.name)
            if counted is not None and family.kind in _SUMMED:
                for key, value in family.samples.items():
                    if key in counted.samples:
                        _add(counted.samples, key, value)
    return list(merged.values())


def write_figures(families: Iterable[Family]) -> bytes:
    """Return the page that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Read(families))
    return generate_latest(registry)


def _add(samples: dict[Key, float], key: Key, value: float) -> None:
    known = samples.get(key)
    if known is None:
        samples[key] = value
    else:
        samples[key] = min(known, value) if key[0].endswith(_CREATED) else known + value


class _Read(Collector):
    def __init__(self, families: Iterable[Family]):
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
