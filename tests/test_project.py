"""The project as installed: what imports cost, what the constraints pin, what the README names."""

import json
import re
import resource
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
HEAVY = {"torch", "pyarrow", "matplotlib", "ray", "fastapi", "gymnasium", "mujoco"}


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def read_constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", s) for s in lines if s[0] != "#"]
    assert all(pins)
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def distributions_of(requirement: str) -> set[str]:
    """Return what pip installs for ``requirement``, without its extras."""
    name = canonicalize_name(Requirement(requirement).name)
    needed = [line for line in requires(name) or [] if "extra ==" not in line]
    return {name}.union(*(distributions_of(line) for line in needed if applies(line)))


def applies(requirement: str) -> bool:
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate()


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    listed = PROJECT["dependencies"] + [line for extra in extras for line in extra]
    requirements = [Requirement(line) for line in listed]
    return [requirement for requirement in requirements if requirement.name != "dynlearn"]


@pytest.mark.parametrize(
    "module", ["dynlearn", "dynlearn.config", "dynlearn.errors", "dynlearn.task", "dynlearn.client"]
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    modules = modules_after(f"import {module}")
    assert "dynlearn" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "module", ["dynlearn.registry", "dynlearn.data.writer", "dynlearn_services.tokens"]
)
def test_what_lies_on_disk_is_looked_after_without_torch(module: str) -> None:
    assert "torch" not in modules_after(f"import {module}")


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {absent}:
            raise ModuleNotFoundError(f"absent here: {{name}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_client_imports_where_only_the_bare_dependencies_are_installed() -> None:
    bare = {"dynlearn"}.union(*map(distributions_of, PROJECT["dependencies"]))
    absent = {
        module
        for module, distributions in packages_distributions().items()
        if bare.isdisjoint(map(canonicalize_name, distributions))
    }
    assert {"torch", "rich", "yaml"} <= absent
    modules = modules_after(ABSENT.format(absent=absent) + "import dynlearn.client")
    assert {"httpx", "numpy", "pydantic"} <= modules


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dynlearn', '--help']\n"
        "from dynlearn_services import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code"
    )
    assert not modules_after(code) & HEAVY


def test_help_answers_in_little_more_than_its_libraries_take_to_load() -> None:
    def seconds(*command: str | Path) -> float:
        """Return the processor's time, which other load does not lengthen much."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    dynlearn = Path(sysconfig.get_path("scripts")) / "dynlearn"
    libraries = sys.executable, "-c", "import typer, pydantic; pydantic.BaseModel"
    pairs = [(seconds(dynlearn, "--help"), seconds(*libraries)) for _ in range(4)]
    answer, least = (min(times) for times in zip(*pairs, strict=True))
    # Half a second where the libraries take a sixth, as they do on a quiet machine.
    assert answer < 3 * least


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    pins = read_constraints()
    requirements = direct_requirements()
    assert {"numpy", "torch", "mujoco", "ray", "pytest"} <= {r.name for r in requirements}
    for requirement in requirements:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_constraints_keep_the_two_pins_that_matter() -> None:
    pins = read_constraints()
    assert pins["torch"] == "2.13.0"
    assert Version(pins["mujoco"]) < Version("3.12")
    assert any(
        r.name == "mujoco" and not r.specifier.contains("3.12.0") for r in direct_requirements()
    )


def test_packages_are_typed() -> None:
    for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


def test_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_ci_runs_what_the_makefile_has() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^make (\w+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert commands == ["check", "test"]
    assert {*commands, "setup", "demo", "bench"} <= set(targets)
