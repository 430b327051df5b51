"""A server under attack: mutated requests by the hundred thousand, and callers that mean ill.

Mutated bodies, headers and paths must be answered by 4xx or, where they still make sense, by 200;
never by 5xx, nor with a traceback in the log. Then one kind of bad caller after another, each
against a server of its own, which gets SIGTERM in the midst of it: it must be gone within its grace
time. All the while another process asks whether the server lives.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.bad_callers import ATTACKS, CALLERS, PATIENCE, Attack, Server, read_answer
from benchmarks.liveness import probing
from benchmarks.mutations import Request, mutated_requests
from benchmarks.report import markdown_table, print_figures, run_command
from benchmarks.rollout import make_model
from benchmarks.soak import messages, resident_bytes
from dynlearn.registry import Registry
from dynlearn_services.home import Home
from dynlearn_services.tokens import Tokens

# Requests, and seconds of each kind of bad caller.
BUDGETS = {"small": (5_000, 5.0), "full": (100_000, 15.0)}
GRACE = 5.0
MOST_LIVE_MS = 50.0
_UNFRAMED_PATIENCE = 2.0
# Of mutated requests, before which memory does not count.
_WARM_SHARE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    requests, seconds = BUDGETS[arguments.budget]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder)
        Registry(home.models).publish("big", make_model(28).save)
        figures = mutate(home, requests, arguments.seed)
        rows = []
        for name, attack in ATTACKS.items():
            found = asyncio.run(endure(home, attack, seconds))
            rows.append([name, *(f"{value:.1f}" for value in found.values())])
            print(*rows[-1], sep=", ")
            short = name.replace(" ", "_")
            figures |= {f"{short}_{key}": value for key, value in found.items()}
    header = ["callers", "live p50, ms", "p99, ms", "most, ms", "MiB more", "s to end"]
    print(markdown_table(header, rows))
    print_figures("attack", figures)
    late = [name for name in figures if name.endswith("seconds_to_end") and figures[name] > GRACE]
    late += [name for name in figures if name.endswith("p99_ms") and figures[name] > MOST_LIVE_MS]
    if late:
        sys.exit(f"expected ends within {GRACE} s and p99 of {MOST_LIVE_MS} ms, got more: {late}")


def mutate(home: Home, count: int, seed: int) -> dict[str, float]:
    """Send mutated requests; raise where one is answered by 5xx or leaves a traceback."""
    with running(home) as server, probing(*server.address) as probed:
        good = [(path, message) for path, message in messages() if len(message.body) < 50_000]
        requests = mutated_requests(good, server.host, server.token, count, seed)
        statuses, memory = asyncio.run(send_all(server, requests, count))
    print(f"{count} mutated requests, answered by:", dict(sorted(statuses.items())))
    return {
        "requests": count,
        "answered": count - statuses[0],
        "mutated_growth_mib": (memory[-1] - memory[0]) / 2**20,
        **{f"mutated_{name}": value for name, value in in_milliseconds(probed[0]).items()},
    }


async def send_all(
    server: Server, requests: Iterator[Request], count: int
) -> tuple[Counter[int], list[int]]:
    """Send from several callers; return answers by status (0: none) and the memory on the way."""
    statuses: Counter[int] = Counter()
    memory: list[int] = []
    bar = tqdm(total=count, unit="request", disable=None)
    warm = int(_WARM_SHARE * count)

    async def call() -> None:
        connection = None
        for request in requests:
            connection, status = await send(server, request, connection)
            statuses[status] += 1
            bar.update()
            if status >= 500:
                raise RuntimeError(f"expected no {status}, got one for {request.data[:2000]!r}")
            if statuses.total() in (warm, count):
                memory.append(resident_bytes(server.process.pid))
        if connection is not None:
            connection[1].close()

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(call())
    return statuses, memory


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def send(
    server: Server, request: Request, connection: Connection | None
) -> tuple[Connection | None, int]:
    """Send a request and read its answer; return the connection if it goes on, and the status."""
    reader, writer = connection or await asyncio.open_connection(*server.address)
    status, goes_on = 0, False
    try:
        async with asyncio.timeout(PATIENCE if request.is_framed else _UNFRAMED_PATIENCE):
            writer.write(request.data)
            status, goes_on = await read_answer(reader, request.has_body)
    except (OSError, asyncio.IncompleteReadError):
        # Closed without a word, or waiting for more of what looks unfinished.
        pass
    if goes_on and request.is_framed:
        return (reader, writer), status
    writer.close()
    return None, status


async def endure(home: Home, attack: Attack, seconds: float) -> dict[str, float]:
    """Let bad callers at a server for so long, and end it in the midst of it."""
    with running(home) as server:
        before = most = resident_bytes(server.process.pid)
        attacking = asyncio.create_task(attack(server))
        with probing(*server.address) as probed:
            for _ in range(int(seconds)):
                await asyncio.sleep(1)
                most = max(most, resident_bytes(server.process.pid))
        began = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, GRACE + PATIENCE)
        taken = time.perf_counter() - began
        attacking.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await attacking
    return {
        **in_milliseconds(probed[0]),
        "growth_mib": (most - before) / 2**20,
        "seconds_to_end": taken,
    }


def in_milliseconds(taken: NDArray[np.float64]) -> dict[str, float]:
    """Return the median, the 99th percentile and the most of some answers' times."""
    p50, p99 = np.percentile(taken, [50, 99])
    return {"live_p50_ms": float(p50), "live_p99_ms": float(p99), "live_max_ms": float(taken.max())}


@contextmanager
def running(home: Home) -> Iterator[Server]:
    """Run ``dynlearn serve`` with a token; raise where its log has a traceback in the end."""
    tokens = Tokens(home.tokens)
    token = tokens.create(f"attack-{time.time_ns()}", "write")
    log = Path(home.root) / "log"
    command = [sys.executable, "-m", "dynlearn_services", "serve", "--home", str(home.root)]
    options = ["--port", "0", "--grace-seconds", str(GRACE)]
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=written, text=True
        ) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        host, _, port = url.removeprefix("http://").rpartition(":")
        try:
            yield Server(process, (host, int(port)), token)
        finally:
            process.kill()
    if "Traceback" in log.read_text():
        raise RuntimeError(f"expected no traceback in the server's log, got {log.read_text()}")


if __name__ == "__main__":
    run_command(main)
