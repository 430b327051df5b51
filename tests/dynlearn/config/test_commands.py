import subprocess
import sys

import pytest
from pydantic import ValidationError

from dynlearn.config import (
    CollectConfig,
    Config,
    EvaluateConfig,
    PlanConfig,
    ServeConfig,
    TrainConfig,
)
from dynlearn.config.parsing import parse_config
from dynlearn.errors import InvalidInput

KINDS = [CollectConfig, TrainConfig, EvaluateConfig, ServeConfig, PlanConfig]
NEEDED = {"dataset": "d", "model": "m"}


def _make(kind: type[Config], **options: object) -> Config:
    needed = {key: value for key, value in NEEDED.items() if key in kind.model_fields}
    return kind(**{**needed, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_help_and_survives_json(kind: type[Config]) -> None:
    assert all(field.description for field in kind.model_fields.values())
    config = _make(kind)
    assert kind.model_validate_json(config.model_dump_json()) == config
    assert hash(config) == hash(_make(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keys_and_changes_are_refused(kind: type[Config]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        _make(kind, unknown=1)
    with pytest.raises(ValidationError, match="frozen"):
        _make(kind).seed = 1


@pytest.mark.parametrize(
    ("text", "numbers"), [("64,32", (64, 32)), ("64", (64,)), ("64, 32", (64, 32)), ([1], (1,))]
)
def test_whole_numbers_with_commas(text: object, numbers: tuple[int, ...]) -> None:
    assert _make(TrainConfig, hidden=text).hidden == numbers


@pytest.mark.parametrize("text", ["", "64,", "64,,32", ","])
def test_missing_numbers_between_commas_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="hidden"):
        _make(TrainConfig, hidden=text)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": "64,x"},
        {"members": 0},
        {"members": 257},
        {"beta": 1.5},
        {"beta": float("nan")},
        {"learning_rate": 0},
        {"validation_share": 1},
        {"batch_size": 0},
        {"objective": "mae"},
        {"covariance": "banded"},
        {"precision": "float16"},
        {"member_groups": 0},
        {"workers": 0},
        {"trust_region": "tv"},
        {"mean_bound": 0},
        {"covariance_bound": -1},
        {"natural_step": 1.5},
        {"regression_metric": "l2"},
        {"refresh_epochs": 0},
        {"memory_limit_gib": 0},
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _make(TrainConfig, **options)


def test_a_datasets_content_depends_neither_on_workers_nor_on_resumption() -> None:
    one = CollectConfig(dataset="d", workers=1)
    assert one.content() == CollectConfig(dataset="d", workers=7, resume=True).content()
    assert one.content() != CollectConfig(dataset="d", seed=1).content()


def test_a_plain_datasets_content_is_described_as_before_there_were_faults() -> None:
    plain = CollectConfig(dataset="d").content()
    assert not {"on_error", "seed_range", "env_kwargs", "step_timeout"} & plain.keys()
    more = CollectConfig(dataset="d", on_error="cut", seed_range="0:99", step_timeout=3).content()
    assert more == plain | {"on_error": "cut", "seed_range": [0, 99]}


@pytest.mark.parametrize("given", ["0:99", [0, 99], (0, 99)])
def test_a_range_of_seeds(given: object) -> None:
    assert parse_config(CollectConfig, {"dataset": "d", "seed_range": given}).seed_range == (0, 99)


@pytest.mark.parametrize("given", ["99", "9:0", "a:b", "-1:3", 90, "1:2:3", [1], f"0:{2**63}"])
def test_what_is_no_range_of_seeds(given: object) -> None:
    with pytest.raises(InvalidInput, match="--seed-range: expected"):
        parse_config(CollectConfig, {"dataset": "d", "seed_range": given})


def test_light_modules_import_nothing_heavy() -> None:
    program = (
        "import sys, dynlearn.config, dynlearn.errors, dynlearn.task, dynlearn_services.home\n"
        "heavy = {'torch', 'ray', 'mujoco', 'gymnasium', 'pyarrow', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_server_plans_in_its_own_precision() -> None:
    assert PlanConfig(model="m", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(ValidationError, match="give it to `dynlearn serve`"):
        PlanConfig(model="m", precision="bfloat16", url="http://127.0.0.1:8000")


@pytest.mark.parametrize("kind", [CollectConfig, PlanConfig])
def test_environments_take_json(kind: type[Config]) -> None:
    for given in ('{"g": 2.0, "wind": [1, null]}', {"g": 2.0, "wind": [1, None]}):
        config = parse_config(kind, _with(kind, given))
        assert config.model_dump()["env_kwargs"] == {"g": 2.0, "wind": [1, None]}


@pytest.mark.parametrize(
    "text", ["g=2.0", "[1]", "3", '{"g": NaN}', '{"g": 1', "[" * 100_000, {"g": float("nan")}]
)
def test_what_is_no_json_object_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput, match="--env-kwargs: expected") as caught:
        parse_config(CollectConfig, _with(CollectConfig, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def _with(kind: type[Config], kwargs: object) -> dict[str, object]:
    needed = {key: value for key, value in NEEDED.items() if key in kind.model_fields}
    return {**needed, "env_kwargs": kwargs}


def test_a_dataset_without_kwargs_is_described_as_before() -> None:
    assert "env_kwargs" not in CollectConfig(dataset="d").content()
    assert CollectConfig(dataset="d", env_kwargs={"g": 2}).content()["env_kwargs"] == {"g": 2}
