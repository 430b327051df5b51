"""What serving costs: over the call in process, against a plain endpoint, and with many callers.

The ensemble of PETS and MBPO: 5 members of 4 × 200 SiLU, float32, 28 + 4 columns, on the CPU.
Servers run in processes of their own. What is compared is measured in turns, a second each.

- Binary predictions of mean and variance of 1 to 5000 rows, beside the call in process.
- The same for 500 rows in JSON, beside a plain endpoint (FastAPI, a pydantic model, ``tolist``),
  beside that with its answer typed, and beside MLServer, where its packages are
  (`make bench NAME=serving` installs them).
- Answers a second to 1, 8 and 64 callers of one row, with requests merged and not.
- A rollout of 350 sequences of 15 steps with 20 particles (25 + 4 columns, the reward of
  FetchPickAndPlace), beside the call in process.
- A prediction of one row, alone and beside a caller of such rollouts without pause.
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import torch
from tqdm import tqdm

from benchmarks.callers import Latency, poster, requests_per_second, time_calls
from benchmarks.mlserver_process import running_mlserver
from benchmarks.plain_endpoint import serve_plainly
from benchmarks.report import markdown_table, print_figures, run_command
from benchmarks.rollout import (
    ACTION,
    CANDIDATES,
    HORIZON,
    OBSERVATION,
    PARTICLES,
    make_model,
)
from dynlearn.config import ServeConfig
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.planning import estimate_returns
from dynlearn.protocol.messages import Message, encode_request
from dynlearn.protocol.names import OUTPUTS
from dynlearn.protocol.tensors import Array
from dynlearn.registry import Registry
from dynlearn.task import find_task
from dynlearn_services.server import serve

BUDGETS = {"small": 5, "full": 30}
ROWS = (1, 50, 500, 5000)
CALLERS = (1, 8, 64)
FETCH = "FetchPickAndPlace-v4"
NAMES = (OUTPUTS["mean"], OUTPUTS["variance"])
INFER = "/v2/models/big/infer"

Tensors = Mapping[str, Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--mlserver", type=Path, help="the folder of MLServer's packages")
    arguments = parser.parse_args()
    turns = BUDGETS[arguments.budget]
    models = {"big": make_model(OBSERVATION), "fetch": make_model(25)}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            Registry(Path(folder)).publish(name, model.save)
        with running(serve_models, folder, {}) as url:
            figures = race_predictions(url, models["big"], turns)
            with ExitStack() as rivals:
                plain = rivals.enter_context(running(serve_plainly, folder, OBSERVATION))
                mlserver = None
                if arguments.mlserver:
                    served = Registry(Path(folder)).resolve("big").folder
                    mlserver = rivals.enter_context(
                        running_mlserver(arguments.mlserver, served, "big")
                    )
                figures |= race_json(url, plain, mlserver, turns)
            figures |= race_rollouts(url, models["fetch"], turns)
            figures |= race_mixed(url, turns)
            with running(serve_models, folder, {"batch_rows": 1}) as unmerged:
                figures |= race_callers(url, unmerged, turns)
    print_figures("serving", figures)


def make_rows(count: int, columns: int = OBSERVATION) -> dict[str, Array]:
    """Return observations and actions."""
    rng = np.random.default_rng(0)
    sizes = {"observation": columns, "action": ACTION}
    return {n: rng.uniform(-1, 1, (count, size)).astype(np.float32) for n, size in sizes.items()}


def race_predictions(url: str, model: DynamicsModel, turns: int) -> dict[str, float]:
    """Time binary predictions over HTTP and in process."""
    figures: dict[str, float] = {}
    rows = []
    for count in ROWS:
        tensors = make_rows(count)
        post = poster(url, INFER, encode_request(tensors, NAMES))

        def call(tensors: Tensors = tensors) -> None:
            prediction = model.predict(tensors["observation"], tensors["action"])
            prediction.mean.numpy(), prediction.variance.numpy()

        inside, outside = in_turns(f"{count} rows", turns, call, post)
        over = outside.p50 - inside.p50
        figures[f"overhead_ms_p50_{count}"] = over
        shown = (inside.p50, inside.p99, outside.p50, outside.p99, over)
        rows.append([str(count), *(f"{value:.2f}" for value in shown)])
    title = ["rows", "in process, p50 (ms)", "p99", "HTTP, p50 (ms)", "p99", "over, p50"]
    print(markdown_table(title, rows), flush=True)
    return figures | {"overhead_ms_p50": figures["overhead_ms_p50_500"]}


def race_json(url: str, plain: str, mlserver: str | None, turns: int) -> dict[str, float]:
    """Time predictions in JSON: ours, a plain endpoint's two ways, MLServer's."""
    tensors = make_rows(500)
    inputs = [
        {"name": n, "datatype": "FP32", "shape": v.shape, "data": v.ravel().tolist()}
        for n, v in tensors.items()
    ]
    protocol = json_message({"inputs": inputs, "outputs": [{"name": name} for name in NAMES]})
    nested = json_message({name: values.tolist() for name, values in tensors.items()})
    posts = {
        "dynlearn": poster(url, INFER, protocol),
        "plain FastAPI": poster(plain, "/predict", nested),
        "plain FastAPI, answer typed": poster(plain, "/predict-typed", nested),
    }
    if mlserver:
        posts["MLServer"] = poster(mlserver, INFER, protocol)
    found = dict(zip(posts, in_turns("JSON", turns, *posts.values()), strict=True))
    ratios = {name: latency.p50 / found["dynlearn"].p50 for name, latency in found.items()}
    rows = [
        [name, f"{latency.p50:.2f}", f"{latency.p99:.2f}", f"{ratios[name]:.2f}"]
        for name, latency in found.items()
    ]
    title = ["JSON, 500 rows", "p50 (ms)", "p99", "this / dynlearn's"]
    print("\n" + markdown_table(title, rows), flush=True)
    figures = {
        "json_ms_p50": found["dynlearn"].p50,
        "json_speedup": ratios["plain FastAPI"],
        "json_speedup_typed": ratios["plain FastAPI, answer typed"],
    }
    if mlserver:
        figures["json_speedup_mlserver"] = ratios["MLServer"]
    return figures


def json_message(document: Mapping[str, Any]) -> Message:
    """Return a document as a request's body."""
    return Message(orjson.dumps(document), None)


def race_rollouts(url: str, model: DynamicsModel, turns: int) -> dict[str, float]:
    """Time a rollout over HTTP and in process."""
    tensors = make_sequences()
    reward = find_task(FETCH).reward("dense")

    def call() -> None:
        observation, plans, context = map(torch.from_numpy, tensors.values())
        estimate_returns(
            model, reward, observation, plans, context, PARTICLES, "ts1", risk_aversion=0.0, seed=0
        )

    post = poster_of_rollouts(url, tensors)
    inside, outside = in_turns("rollout", turns, call, post)
    rows = [["", f"{inside.p50:.0f}", f"{outside.p50:.0f}", f"{outside.p50 / inside.p50:.2f}"]]
    title = ["rollout", "in process, p50 (ms)", "HTTP, p50 (ms)", "ratio"]
    print("\n" + markdown_table(title, rows), flush=True)
    return {"rollout_ms_p50": outside.p50, "rollout_http_ratio": outside.p50 / inside.p50}


def make_sequences() -> dict[str, Array]:
    """Return a start state, action sequences and a goal."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.uniform(-1, 1, (1, 25)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (1, CANDIDATES, HORIZON, ACTION)).astype(np.float32),
        "context": np.zeros((1, 3), np.float32),
    }


def poster_of_rollouts(url: str, tensors: Tensors) -> Callable[[], object]:
    """Return a call that has sequences judged over HTTP."""
    parameters = {"particles": PARTICLES, "propagation": "ts1", "seed": 0, "reward": "dense"}
    parameters["environment"] = FETCH
    message = encode_request(tensors, ["returns"], parameters)
    return poster(url, "/v1/models/fetch/rollout", message)


def race_mixed(url: str, turns: int) -> dict[str, float]:
    """Time a prediction of one row, alone and beside rollouts without pause."""
    predict = poster(url, INFER, encode_request(make_rows(1), NAMES))
    alone = time_calls(predict, float(turns))
    stop = threading.Event()
    roll_out, rollouts = poster_of_rollouts(url, make_sequences()), 0

    def roll_out_without_pause() -> None:
        nonlocal rollouts
        while not stop.is_set():
            roll_out()
            rollouts += 1

    thread = threading.Thread(target=roll_out_without_pause)
    thread.start()
    try:
        began = time.perf_counter()
        mixed = time_calls(predict, 2.0 * turns)
        each = (time.perf_counter() - began) / max(1, rollouts)
    finally:
        stop.set()
        thread.join()
    rows = [
        ["alone", f"{alone.p50:.1f}", f"{alone.p99:.1f}", ""],
        ["beside rollouts", f"{mixed.p50:.1f}", f"{mixed.p99:.1f}", f"{1e3 * each:.0f}"],
    ]
    title = ["a prediction of one row", "p50 (ms)", "p99 (ms)", "a rollout (ms)"]
    print("\n" + markdown_table(title, rows), flush=True)
    return {"mixed_p50_ms": mixed.p50, "mixed_p99_ms": mixed.p99, "alone_p99_ms": alone.p99}


def race_callers(merged: str, unmerged: str, turns: int) -> dict[str, float]:
    """Count the answers to many callers of one row, from a server that merges and one that not."""
    message = encode_request(make_rows(1), NAMES)
    figures: dict[str, float] = {}
    rows = []
    for callers in CALLERS:
        rates = {url: 0.0 for url in (merged, unmerged)}
        for _ in tqdm(range(turns), f"{callers} callers", disable=None, leave=False):
            for url in rates:
                rates[url] += requests_per_second(url, INFER, message, callers, 1.0) / turns
        gain = rates[merged] / rates[unmerged]
        figures |= {f"requests_per_s_{callers}": rates[merged], f"batching_gain_{callers}": gain}
        rows.append([str(callers), *(f"{rate:.0f}" for rate in rates.values()), f"{gain:.2f}"])
    title = ["callers of one row", "answers/s, merged", "not merged", "gain"]
    print("\n" + markdown_table(title, rows), flush=True)
    return figures | {"batching_gain": figures["batching_gain_64"]}


def in_turns(name: str, turns: int, *calls: Callable[[], object]) -> list[Latency]:
    """Time some calls in turns; of each figure the median over the turns."""
    found: list[list[Latency]] = [[] for _ in calls]
    for _ in tqdm(range(turns), name, disable=None, leave=False):
        for latencies, call in zip(found, calls, strict=True):
            latencies.append(time_calls(call, 1.0))
    return [
        Latency(
            *(float(np.median([getattr(one, part) for one in each])) for part in ("p50", "p99"))
        )
        for each in found
    ]


def serve_models(connection: Connection, folder: str, options: Mapping[str, Any]) -> None:
    """Serve a registry as `dynlearn serve` does, and send the address."""
    config = ServeConfig.model_validate({"port": 0, **options})
    serve(config, Path(folder), on_ready=connection.send)


@contextmanager
def running(server: Callable[..., None], *arguments: object) -> Iterator[str]:
    """Run a server in a process of its own, and yield its address."""
    with running_process(server, *arguments) as (_, url):
        yield url


@contextmanager
def running_process(
    server: Callable[..., None], *arguments: object
) -> Iterator[tuple[BaseProcess, str]]:
    """Do the same, and yield the process too."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=server, args=(theirs, *arguments), daemon=True)
    # As the command line does, before torch is imported.
    with patch.dict(os.environ, {"OMP_WAIT_POLICY": "PASSIVE"}):
        process.start()
    theirs.close()
    try:
        yield process, ours.recv()
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    run_command(main)
