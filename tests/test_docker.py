"""What docker/ names exists: no engine runs here, so its files are held against the project."""

import fnmatch
import importlib.util
import os
import re
import shlex
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from dynlearn.config import ServeConfig
from dynlearn_services.home import Home

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker/compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_instructions(dockerfile: str) -> list[tuple[str, str]]:
    code = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    lines = code.replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


INSTRUCTIONS = read_instructions(DOCKERFILE)


def arguments(keyword: str) -> list[str]:
    return [argument for name, argument in INSTRUCTIONS if name == keyword]


def in_comments(text: str, *words: str) -> list[list[str]]:
    """Return what follows ``words`` in the shell lines of a file's comments."""
    lines = (line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    found = (line.partition(" ".join(words)) for line in lines)
    return [shlex.split(rest) for _, words_found, rest in found if words_found]


def dynlearn_commands() -> list[list[str]]:
    served = [s["command"] for s in SERVICES.values() if "entrypoint" not in s]
    return served + in_comments(COMPOSE_TEXT, "exec ray-head dynlearn")


def ray_commands() -> list[list[str]]:
    started = [s["command"] for s in SERVICES.values() if s.get("entrypoint") == ["ray"]]
    tests = [s["healthcheck"]["test"] for s in SERVICES.values() if "healthcheck" in s]
    return started + [test[2:] for test in tests if test[:2] == ["CMD", "ray"]]


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_module(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    return (Path(spec.origin).parent / path).read_text()


def flags(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def assert_flags_exist(program: str, command: list[str]) -> None:
    known = set(re.findall(r"--[a-z][a-z-]*", run(program, command[0], "--help")))
    assert flags(command) <= known


def test_copied_paths_exist_and_reach_the_build() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    assert ignore[0] == "*"
    kept = [line[1:] for line in ignore if line.startswith("!")]
    copied = [path for argument in arguments("COPY") for path in argument.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert path in kept
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for package in packed["targets"]["wheel"]["packages"]:
        assert any(fnmatch.fnmatch(package, f"{path}*") for path in copied)
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)


def test_extras_exist_and_constraints_hold() -> None:
    install, own = [a for a in arguments("RUN") if "pip install" in a]
    assert "--no-deps ." in own
    extras = re.findall(r"\.\[([a-z,]+)\]", install)
    assert extras
    assert set(extras[0].split(",")) <= set(PROJECT["optional-dependencies"])
    assert "-c constraints.txt" in install


def test_base_image_has_a_python_that_the_project_takes() -> None:
    (base,) = arguments("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert version
    assert SpecifierSet(PROJECT["requires-python"]).contains(version[1])


def test_an_edit_of_the_sources_leaves_the_layer_of_the_dependencies(tmp_path: Path) -> None:
    order = [f"{name} {argument}" for name, argument in INSTRUCTIONS]
    (installed,) = [i for i, line in enumerate(order) if ".[all]" in line]
    copied = [line for line in order[:installed] if line.startswith("COPY")]
    assert copied == ["COPY pyproject.toml constraints.txt ./"]
    stubs = order[installed].removeprefix("RUN ").partition("&& pip install")[0]
    subprocess.run(["sh", "-ec", stubs], cwd=tmp_path, check=True)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for package in build["targets"]["wheel"]["packages"]:
        assert (tmp_path / package / "__init__.py").exists()
    for file in (PROJECT["readme"], *PROJECT["license-files"]):
        assert (tmp_path / file).exists()


def test_gpus_are_reserved_for_what_computes_on_them() -> None:
    gpu = yaml.safe_load((ROOT / "docker/compose.gpu.yaml").read_text())["services"]
    assert set(gpu) == {"ray-head", "ray-worker", "api"} <= set(SERVICES)
    for service in gpu.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_build_arguments_are_declared() -> None:
    declared = {argument.partition("=")[0] for argument in arguments("ARG")}
    used = set(re.findall(r"--build-arg (\w+)=", DOCKERFILE))
    for service in SERVICES.values():
        used |= set(service["build"]["args"])
        context = ROOT / "docker" / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).samefile(ROOT / "docker/Dockerfile")
    assert used == declared


def test_image_does_not_run_as_root() -> None:
    (user,) = arguments("USER")
    assert any(f"useradd --create-home {user}" in run for run in arguments("RUN"))
    order = [name for name, _ in INSTRUCTIONS]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_services_and_volumes_refer_to_each_other() -> None:
    (home,) = re.findall(r"DYNLEARN_HOME=(\S+)", DOCKERFILE)
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name]
        for volume in service.get("volumes", []):
            name, _, path = volume.partition(":")
            assert name in COMPOSE["volumes"]
            assert path == home
    for words in in_comments(COMPOSE_TEXT, "docker compose up"):
        assert words[-1] in SERVICES
    address = COMPOSE["x-ray"]["environment"]["RAY_ADDRESS"]
    assert f"--address={address}" in SERVICES["ray-worker"]["command"]
    assert address in SERVICES["ray-head"]["healthcheck"]["test"]
    host, _, port = address.partition(":")
    assert f"--port={port}" in SERVICES[host]["command"]


def test_only_the_server_is_reached_and_only_on_the_hosts_loopback() -> None:
    assert not [name for name, service in SERVICES.items() if "ports" in service]
    on_the_host = [name for name, service in SERVICES.items() if "network_mode" in service]
    assert on_the_host == ["api"]
    assert SERVICES["api"]["network_mode"] == "host"
    assert "--host" not in SERVICES["api"]["command"]  # its default is loopback
    assert ServeConfig.model_fields["host"].default == "127.0.0.1"


def test_every_ray_process_needs_the_token() -> None:
    for service in SERVICES.values():
        if service.get("entrypoint") == ["ray"]:
            assert service["environment"]["RAY_AUTH_MODE"] == "token"
            assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
            assert service["shm_size"] == "2gb"
    assert "--include-dashboard=false" in SERVICES["ray-head"]["command"]


@pytest.mark.parametrize("command", dynlearn_commands(), ids=" ".join)
def test_dynlearn_commands_and_flags_exist(command: list[str]) -> None:
    assert arguments("ENTRYPOINT") == ['["dynlearn"]']
    assert_flags_exist("dynlearn", command)


@pytest.mark.parametrize("command", ray_commands(), ids=" ".join)
def test_ray_commands_and_flags_exist(command: list[str]) -> None:
    assert_flags_exist("ray", command)


def test_environment_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(r"([A-Z_]+)=", " ".join(arguments("ENV"))))
    named |= {name for s in SERVICES.values() for name in s.get("environment", {})}
    assert named == {"DYNLEARN_HOME", "MUJOCO_GL", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}

    monkeypatch.setenv("DYNLEARN_HOME", "/somewhere")
    assert Home().root == Path("/somewhere")
    token = "0123456789abcdef" * 4
    assert token in run("ray", "get-auth-token", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert '"RAY_ADDRESS"' in read_module("ray", "_private/ray_constants.py")
    assert "MUJOCO_GL" in read_module("mujoco", "rendering/classic/gl_context.py")
    assert "'egl'" in read_module("mujoco", "rendering/classic/gl_context.py")


def test_healthcheck_asks_a_route_of_the_server() -> None:
    (program,) = [w for w in SERVICES["api"]["healthcheck"]["test"] if "urlopen" in w]
    compile(program, "healthcheck", "exec")
    (path,) = re.findall(r'http://127\.0\.0\.1:8000(/[^"]*)', program)
    server = ROOT / "services/dynlearn_services/server"
    assert any(f'"{path}"' in module.read_text() for module in server.rglob("*.py"))
