"""params.yaml as the rooms read it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from trashnet.errors import UserError
from trashnet.params import Params, load_params, load_seed, set_params


class Oven(Params):
    """A section for these tests."""

    degrees: int = 180
    minutes: float


def write(folder: Path, text: str) -> Path:
    """A parameter file with this content."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_section_is_read_into_its_model_with_its_defaults(tmp_path: Path) -> None:
    """What the file says, and the model's default where it is silent."""
    assert load_params("oven", Oven, write(tmp_path, "oven: {minutes: 12}")) == Oven(degrees=180, minutes=12)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "oven: {minutes: 12, degree: 200}",
            r"oven\.degree",
        ),  # a misspelt key would otherwise train with the default for hours
        ("oven: {minutes: soon}", r"oven\.minutes"),
        ("oven: {}", r"oven\.minutes"),
        ("pan: {}", "section `oven` is missing"),
        ("", "section `oven` is missing"),
        ("oven: [", "not YAML"),
    ],
)
def test_a_faulty_section_is_refused_by_the_name_of_its_fault(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """A key nobody reads, a wrong type, a missing value or section, a broken file."""
    with pytest.raises(UserError, match=complaint):
        load_params("oven", Oven, write(tmp_path, text))


def test_a_missing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """It says where to run, or which option names another file."""
    with pytest.raises(UserError, match="--params"):
        load_params("oven", Oven, tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["seed: -1", "seed: 4294967296", "seed: true", "seed: twenty", "seed: 1.5"])
def test_a_seed_is_a_whole_number_that_every_generator_takes(tmp_path: Path, text: str) -> None:
    """0 to 2**32 - 1, and nothing that only looks like it."""
    with pytest.raises(UserError, match="seed"):
        load_seed(write(tmp_path, text))


def test_the_seed_is_read(tmp_path: Path) -> None:
    """The largest is allowed."""
    assert load_seed(write(tmp_path, "seed: 4294967295")) == 2**32 - 1


def test_a_value_is_set_and_everything_else_stays_as_written(tmp_path: Path) -> None:
    """Comments, order and the other values are kept to the letter."""
    path = write(tmp_path, "# all\noven:\n  degrees: 180  # hot\n  minutes: 12\n  range: [1, 2]\nseed: 20\n")
    set_params({"oven.degrees": "90", "seed": "7", "oven.range": "[3, 4]"}, path)
    assert (
        path.read_text() == "# all\noven:\n  degrees: 90   # hot\n  minutes: 12\n  range: [3, 4]\nseed: 7\n"
    )


@pytest.mark.parametrize("key", ["oven.degree", "pan.size", "seed.deep"])
def test_a_key_that_is_not_there_is_refused_and_the_file_left_alone(tmp_path: Path, key: str) -> None:
    """A misspelt key would otherwise be added and change nothing."""
    path = write(tmp_path, "oven: {minutes: 12}\nseed: 1\n")
    before = path.read_text()
    with pytest.raises(UserError, match=key):
        set_params({"seed": "2", key: "1"}, path)
    assert path.read_text() == before


def test_dvc_reads_every_value_of_the_shipped_parameters() -> None:
    """YAML knows dates, DVC does not: one of them would stop every stage, `dvc add` too."""

    def values(node: object) -> Iterator[object]:
        if isinstance(node, dict):
            for one in node.values():
                yield from values(one)
        elif isinstance(node, list):
            for one in node:
                yield from values(one)
        else:
            yield node

    shipped = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    assert {type(value) for value in values(shipped)} <= {int, float, str, bool, type(None)}
