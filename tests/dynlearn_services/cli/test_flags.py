import inspect
from pathlib import Path

import pytest
from pydantic import BaseModel, model_validator

from dynlearn.config import CollectConfig, TrainConfig
from dynlearn.config.parsing import flat_fields, parse_config
from dynlearn.errors import InvalidInput
from dynlearn_services.cli.flags import read_yaml, with_config


def test_values_are_parsed_from_text() -> None:
    config = parse_config(TrainConfig, {"dataset": "d", "model": "m", "hidden": "64,32"})
    assert config.hidden == (64, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected --dataset (name of the dataset to write), got none"),
        ({"dataset": "d", "episods": 3}, "got 'episods'; did you mean episodes or"),
        ({"dataset": "d", "episodes": "x"}, "--episodes: expected a valid integer"),
        ({"dataset": "d", "episodes": 0}, "--episodes: expected greater than or equal to 1, got 0"),
        ({"dataset": "d", "random_share": 2}, "--random-share: expected less than or equal to 1"),
    ],
)
def test_faults_name_the_flag(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_config(CollectConfig, values)
    assert message in str(caught.value)


def test_flags_go_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    seen: list[CollectConfig] = []
    file = tmp_path / "collect.yaml"
    file.write_text("dataset: from-file\nepisodes: 7\n")
    command = with_config(CollectConfig)(seen.append)
    flags = dict.fromkeys(CollectConfig.model_fields)
    command(config_file=file, **{**flags, "episodes": "9"})
    assert (seen[0].dataset, seen[0].episodes, seen[0].policy) == ("from-file", 9, "scripted")


def test_every_field_has_a_flag_with_help() -> None:
    command = with_config(TrainConfig)(lambda config: None)
    parameters = inspect.signature(command).parameters
    for name, field in flat_fields(TrainConfig).items():
        (option,) = parameters[name].annotation.__metadata__
        assert option.help.startswith(field.description or "?")


@pytest.mark.parametrize(
    ("name", "metavar", "end"),
    [
        ("members", "INT", "[default: 5]"),
        ("seed", "INT", "[default: 0]"),
        ("learning_rate", "NUMBER", "[default: 0.001]"),
        ("mean_bound", "NUMBER", "absent: any way"),
        ("covariance_bound", "NUMBER", "[default: 0.1, or none]"),
        ("target_columns", "INT,INT,...", "all if absent"),
        ("schedule", "constant|cosine", "[default: cosine]"),
        ("objective", "NAME", "trust_region_nll, trustable [default: beta_nll]"),
        ("bootstrap", None, "[default: yes]"),
        ("dataset", "TEXT", "[required]"),
    ],
)
def test_the_help_says_what_goes_in_and_what_is_there_without(
    name: str, metavar: str | None, end: str
) -> None:
    command = with_config(TrainConfig)(lambda config: None)
    (option,) = inspect.signature(command).parameters[name].annotation.__metadata__
    assert option.metavar == metavar
    assert option.help.endswith(end)


def test_none_is_said_aloud_only_where_silence_means_something_else() -> None:
    seen: list[TrainConfig] = []
    command = with_config(TrainConfig)(seen.append)
    flags = dict.fromkeys(flat_fields(TrainConfig)) | {"dataset": "d", "model": "none"}
    flags |= {"objective": "trustable", "covariance_bound": "none"}
    command(config_file=None, **flags)
    assert (seen[0].model, seen[0].objective.covariance_bound) == ("none", None)
    with pytest.raises(InvalidInput, match="--mean-bound: expected a valid number"):
        command(config_file=None, **{**flags, "mean_bound": "none"})


class _Pair(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self) -> "_Pair":
        if self.low > self.high:
            raise ValueError(f"low: expected at most {self.high}, got {self.low}")
        return self


def test_a_fault_of_several_fields_names_them_itself() -> None:
    with pytest.raises(InvalidInput, match=r"^low: expected at most 1, got 2$"):
        parse_config(_Pair, {"low": 2, "high": 1})


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "\x00"])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(InvalidInput, match="--config: expected"):
        read_yaml(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="--config: expected a plain file, got /dev/zero"):
        read_yaml(Path("/dev/zero"))


def test_a_file_that_takes_long_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("hidden: [" + "1," * 2**15 + "1]")
    with pytest.raises(InvalidInput, match="--config: expected at most 65536 bytes"):
        read_yaml(tmp_path / "large.yaml")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["", "env_kwargs: "])
def test_a_few_lines_that_stand_for_many_are_refused(tmp_path: Path, key: str) -> None:
    lines = ["&a0 [1]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
    (tmp_path / "lists.yaml").write_text(f"{key}[{', '.join(lines)}]")
    with pytest.raises(InvalidInput, match="--config: expected YAML without aliases, got one"):
        read_yaml(tmp_path / "lists.yaml")


def test_options_that_do_not_go_together_are_named_once() -> None:
    needed = {"dataset": "d", "model": "m", "objective": "trustable"}
    with pytest.raises(InvalidInput, match=r"^beta: expected no such option with .* or take kl$"):
        parse_config(TrainConfig, needed | {"beta": 0.3, "regression_metric": "w2"})
    with pytest.raises(InvalidInput, match=r"^--beta: expected less than or equal to 1, got 2$"):
        parse_config(TrainConfig, needed | {"beta": 2})
    with pytest.raises(InvalidInput, match=r"^beta: expected no such option with objective nll"):
        parse_config(TrainConfig, needed | {"objective": "nll", "beta": 0.3})
