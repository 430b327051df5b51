"""What strangers send: the OpenAPI page taken at its word, and bodies that went wrong."""

import http.client
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynlearn.protocol.messages import HEADER_LENGTH, encode_request

SERVE = """
import sys
from pathlib import Path
from dynlearn.config import ServeConfig
from dynlearn_services.server import serve
serve(ServeConfig(port=0), Path(sys.argv[1]), on_ready=lambda url: print(url, flush=True))
"""
BODIES = 20_000
NAMES = '[parameters]\nname = "arm"\nversion = "1"\n'


@pytest.fixture
def server(arm):
    """A server in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(arm.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process, process.stdout.readline().strip()
        process.terminate()
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()


def test_the_server_is_as_its_page_says(server, tmp_path):
    _, url = server
    config = tmp_path / "schemathesis.toml"
    config.write_text(NAMES)
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command is not None
    run = subprocess.run(
        [
            command,
            f"--config-file={config}",
            "run",
            f"{url}/openapi.json",
            "--checks=all",
            # Tensors that a schema lets through can still be of other sizes than the model's.
            "--exclude-checks=positive_data_acceptance",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=20",
            "--seed=1",
            # Else arm would be unloaded for those who come after.
            "--exclude-path-regex=unload",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
    )
    assert run.returncode == 0, run.stdout[-8000:]
    assert "15 total" in run.stdout


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def mutate(rng: random.Random, body: bytes, header_length: str) -> tuple[bytes, str | None]:
    """Change a request in one to three places."""
    length: str | None = header_length
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(9):
            case 0:
                body = body[:place]
            case 1:
                body = body[:place] + rng.randbytes(rng.randint(1, 9)) + body[place:]
            case 2:
                body = body[:place] + rng.randbytes(1) + body[place + 1 :]
            case 3:
                body = body[:place] + body[place + rng.randint(1, 99) :]
            case 4:
                body = body.replace(
                    rng.choice(b'0123456789,:"{}[]').to_bytes(), rng.randbytes(1), 1
                )
            case 5:
                number = rng.choice(
                    (b"-1", b"1e9", b"999999999999999999999", b"null", b"NaN", b'"x"')
                )
                body = body.replace(rng.choice((b"20", b"4", b"5", b"2", b"8")), number, 1)
            case 6:
                length = rng.choice(
                    (None, "0", "-1", "+5", str(place), "9" * 30, "", "1e3", "\xb2")
                )
            case 7:
                body = body.replace(b'"shape":[4,5]', b'"shape":[1000000000,5]')
            case 8:
                body = body + body
    return body, length


def test_mutated_bodies(server, draw_rows):
    process, url = server
    rng = random.Random(0)
    observation, action = draw_rows(4)
    good = [
        encode_request({"observation": observation, "action": action}, [], {"seed": 1}),
        encode_request(
            {"observation": observation, "action": action},
            ["next_observation_sample", "member_means"],
            {"seed": 1, "members": [0, 2], "propagation": "ts1", "timeout": 10**7},
        ),
        encode_request(
            {"observations": observation, "actions": action.reshape(4, 1, 1, 2)},
            ["trajectory_mean"],
            {"particles": 2},
        ),
    ]
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    memory, statuses = [], {}
    for count in range(BODIES):
        kind = rng.randrange(len(good))
        body, length = mutate(rng, good[kind].body, str(good[kind].header_length))
        headers = {} if length is None else {HEADER_LENGTH: length}
        path = "/v1/models/arm/rollout" if kind == 2 else "/v2/models/arm/infer"
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status != 200:
            assert 400 <= answer.status < 500, (answer.status, content, body, length)
            assert list(json.loads(content)) == ["error"]
        if count in (BODIES // 4, BODIES - 1):
            memory.append(resident_bytes(process.pid))
    connection.close()
    # Most mutations break a request, and some only change its numbers.
    assert statuses[400] > BODIES // 2
    assert statuses[200] > BODIES // 100
    assert memory[1] < 1.05 * memory[0] + 2**20
