from pathlib import Path

import pytest

from dynlearn.errors import InvalidInput
from dynlearn.storage.files import check_name
from dynlearn_services.home import Home


@pytest.mark.parametrize("name", ["slide", "slide-v1.2_b", "7", "a" * 128])
def test_names_that_can_be_folders(name: str) -> None:
    assert check_name(name, "model") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "a\0", "é", "a" * 129],
)
def test_names_that_cannot_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidInput, match="expected a model name of letters") as caught:
        check_name(name, "model")
    assert "\n" not in str(caught.value)


def test_the_root_is_the_argument_then_the_variable_then_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNLEARN_HOME", str(tmp_path / "variable"))
    assert Home(tmp_path / "given").root == tmp_path / "given"
    assert Home().root == tmp_path / "variable"
    monkeypatch.setenv("DYNLEARN_HOME", "")
    assert Home().root == tmp_path / "dynlearn-home"
    assert Home("relative").root == tmp_path / "relative"


def test_folders(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.models == tmp_path / "models"
    assert home.dataset("slide") == str(tmp_path / "datasets" / "slide")
    assert home.dataset("s3://bucket/slide") == "s3://bucket/slide"
    assert home.run("slide") == tmp_path / "runs" / "slide"
    for find in (home.dataset, home.run):
        with pytest.raises(InvalidInput):
            find("../slide")


def test_the_root_is_created(tmp_path: Path) -> None:
    Home(tmp_path / "a" / "b").require_writable()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_root_that_cannot_be_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="name another with --home or DYNLEARN_HOME"):
        Home(tmp_path / place).require_writable()


def test_a_root_that_is_no_folder_is_refused_even_to_read() -> None:
    with pytest.raises(InvalidInput, match="expected a home folder, got /dev/null, which is none"):
        Home("/dev/null")


def test_a_root_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    home = Home(tmp_path / "home")
    try:
        (tmp_path / "probe").touch()
    except PermissionError:
        with pytest.raises(InvalidInput, match="expected a home folder that can be written to"):
            home.require_writable()
    else:
        pytest.skip("this user may write anywhere")
