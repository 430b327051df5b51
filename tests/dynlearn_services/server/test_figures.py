from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dynlearn_services.server.figures import merge, read_figures, write_figures


def server(requests, waiting, seconds=()):
    """The registry of a server that has counted and measured something."""
    registry = CollectorRegistry()
    counter = Counter("requests", "Answers", ("model",), registry=registry)
    for model, count in requests.items():
        counter.labels(model).inc(count)
    Gauge("waiting", "Requests that wait", registry=registry).set(waiting)
    histogram = Histogram("seconds", "Until the answer", buckets=(1, 2), registry=registry)
    for each in seconds:
        histogram.observe(each)
    return registry


def values(page):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_one_server_reads_as_it_is():
    registry = server({"arm": 3}, 1, [0.5])
    assert write_figures(read_figures(registry)) == generate_latest(registry)


def test_what_is_counted_is_summed_and_what_is_measured_is_told_of_each():
    figures = {
        "a": read_figures(server({"arm": 3, "leg": 1}, 5, [0.5, 1.5])),
        "b": read_figures(server({"arm": 4}, 6, [3])),
    }
    found = values(write_figures(merge(figures)))
    assert found == {
        ("requests_total", (("model", "arm"),)): 7,
        ("requests_total", (("model", "leg"),)): 1,
        ("waiting", (("replica", "a"),)): 5,
        ("waiting", (("replica", "b"),)): 6,
        ("seconds_bucket", (("le", "1.0"),)): 1,
        ("seconds_bucket", (("le", "2.0"),)): 2,
        ("seconds_bucket", (("le", "+Inf"),)): 3,
        ("seconds_count", ()): 3,
        ("seconds_sum", ()): 5,
    }
    # Merging has left alone what was merged.
    assert values(write_figures(figures["b"]))["requests_total", (("model", "arm"),)] == 4


def test_what_those_that_are_gone_have_counted_is_kept():
    living = {"a": read_figures(server({"arm": 3}, 5))}
    gone = [read_figures(server({"arm": 4, "leg": 9}, 6, [1]))]
    found = values(write_figures(merge(living, gone)))
    assert found["requests_total", (("model", "arm"),)] == 7
    assert found["seconds_count", ()] == 1
    assert ("requests_total", (("model", "leg"),)) not in found
    assert [key for key in found if key[0] == "waiting"] == [("waiting", (("replica", "a"),))]
