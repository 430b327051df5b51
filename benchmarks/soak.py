"""A server at full load for minutes: predictions, rollouts, JSON, new versions; does memory grow?

16 callers ask as fast as they are answered, while every few seconds a version is published or the
champion moves. Resident memory is taken once a second, and its median in the second tenth of the
time compared with that in the last.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
from tqdm import tqdm

from benchmarks.callers import keep_asking
from benchmarks.report import print_figures, run_command
from benchmarks.rollout import make_model
from benchmarks.serving import INFER, NAMES, make_rows, running_process, serve_models
from dynlearn.protocol.messages import Message, encode_request
from dynlearn.registry import Registry

# Seconds.
BUDGETS = {"small": 60, "full": 600}
CALLERS = 16
CHANGE_EVERY = 3.0
VERSIONS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    seconds = BUDGETS[parser.parse_args().budget]
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        registry.publish("big", make_model(28).save)
        # So that versions leave as well as come.
        options = {"memory_limit_gib": 0.02}
        with running_process(serve_models, folder, options) as (process, url):
            assert process.pid is not None
            answers, memory = asyncio.run(load(url, process.pid, registry, seconds))
    tenths = [float(np.median(part)) for part in np.array_split(np.array(memory), 10)]
    before, after = tenths[1], tenths[-1]
    print("Resident MiB by tenths of the time:", *(f"{each / 2**20:.0f}" for each in tenths))
    figures = {
        "answers_per_s": answers / seconds,
        "resident_mib_before": before / 2**20,
        "resident_mib_after": after / 2**20,
        "growth": after / before - 1,
    }
    print(
        f"{answers} answers in {seconds} s; resident {before / 2**20:.0f} MiB at first, "
        f"{after / 2**20:.0f} MiB in the end: {figures['growth']:+.1%}"
    )
    print_figures("soak", figures)


async def load(url: str, pid: int, registry: Registry, seconds: int) -> tuple[int, list[int]]:
    """Ask and publish for so long; return how many answers came and the memory every second."""
    end = time.perf_counter() + seconds
    asking = [
        asyncio.create_task(keep_asking(url, path, message, end))
        for path, message in (messages()[index % 4] for index in range(CALLERS))
    ]
    changing = asyncio.create_task(asyncio.to_thread(change, registry, end))
    memory = []
    for _ in tqdm(range(seconds), "seconds", disable=None):
        await asyncio.sleep(1)
        memory.append(resident_bytes(pid))
    await changing
    return sum(await asyncio.gather(*asking)), memory


def messages() -> list[tuple[str, Message]]:
    """Return what callers ask: a few rows, many, JSON, a rollout."""
    rows = make_rows(100)
    plans = make_rows(40)["action"].reshape(1, 8, 5, 4)
    tensors = [
        {"name": n, "datatype": "FP32", "shape": v.shape, "data": v.ravel().tolist()}
        for n, v in rows.items()
    ]
    rollout = encode_request(
        {"observations": rows["observation"][:1], "actions": plans}, [], {"particles": 10}
    )
    return [
        (INFER, encode_request(make_rows(3), NAMES)),
        (INFER, encode_request(make_rows(1000), ["next_observation_covariance"])),
        (INFER, Message(orjson.dumps({"inputs": tensors}), None)),
        ("/v1/models/big/rollout", rollout),
    ]


def change(registry: Registry, end: float) -> None:
    """Publish versions, and then move the champion among them."""
    rng = np.random.default_rng(0)
    while time.perf_counter() < end:
        versions = registry.versions("big")
        if len(versions) < VERSIONS:
            registry.publish("big", make_model(28).save)
        else:
            registry.set_alias("big", "champion", versions[int(rng.integers(VERSIONS))])
        time.sleep(CHANGE_EVERY)


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    run_command(main)
