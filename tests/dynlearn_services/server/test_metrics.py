import httpx
import numpy as np
import pytest
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families

from dynlearn.config import ServeConfig
from dynlearn_services.server import running_server


def read(url):
    page = httpx.get(f"{url}/metrics", trust_env=False)
    assert page.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def test_what_is_counted(arm, draw_rows):
    with running_server(ServeConfig(model="arm", port=0), arm.root) as url:
        before = read(url)
        with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
            inputs = []
            for name, values in zip(("observation", "action"), draw_rows(7), strict=True):
                tensor = tritonclient.http.InferInput(name, list(values.shape), "FP32")
                inputs.append(tensor.set_data_from_numpy(values))
            for version in ("", "", "1"):
                client.infer("arm", inputs, version)
            wrong = tritonclient.http.InferInput("observation", [1, 4], "FP32")
            wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
            with pytest.raises(tritonclient.utils.InferenceServerException):
                client.infer("arm", [wrong, inputs[1]])
        after = read(url)

    def grown(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert grown("dynlearn_inference_requests_total", "2", "arm", "ok") == 2
    assert grown("dynlearn_inference_requests_total", "1", "arm", "ok") == 1
    assert grown("dynlearn_inference_requests_total", "2", "400", "arm") == 1
    assert grown("dynlearn_inference_rows_total", "2", "arm") == 14
    assert grown("dynlearn_inference_batches_total", "2", "arm") == 2
    assert grown("dynlearn_batch_rows_count", "arm") == 3
    assert grown("dynlearn_queue_seconds_count", "arm") == 3
    assert grown("dynlearn_inference_seconds_count", "arm", "predict") == 3
    assert grown("dynlearn_request_seconds_count", "arm", "infer") == 4
    assert grown("dynlearn_error_answers_total", "400") == 1
    assert after["dynlearn_served_version", "arm"] == 2
    assert after["dynlearn_loaded_versions", "arm"] == 2
    assert after[("dynlearn_pending_requests",)] == 0
    assert after[("process_resident_memory_bytes",)] > 10**7


def test_two_servers_count_apart(arm):
    config = ServeConfig(model="arm", port=0)
    with running_server(config, arm.root) as one, running_server(config, arm.root) as other:
        httpx.get(f"{one}/nothing", trust_env=False)
        assert read(one)["dynlearn_error_answers_total", "404"] == 1
        assert ("dynlearn_error_answers_total", "404") not in read(other)
