"""The OpenAPI page taken at its word."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SERVE = """
import sys
from pathlib import Path
from dynlearn.config import ServeConfig
from dynlearn_services.server import serve
serve(ServeConfig(port=0), Path(sys.argv[1]), on_ready=lambda url: print(url, flush=True))
"""
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
