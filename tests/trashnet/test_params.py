"""params.yaml: reading a section, setting a value, and the shipped file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dataset import GrowthParams
from dataset.formats import ImportParams
from dataset.rebalance import RebalanceParams
from dataset.splits import SplitParams
from evaluation import EvaluationParams
from evaluation.gate import GateParams
from export.params import ExportParams
from ingest import IngestParams
from labeling import LabelingParams
from selection import SelectionParams
from synthetic import SampleParams
from tests.conftest import REPOSITORY
from training.efficientdet.params import EfficientDetParams
from training.params import RetrainingParams
from training.ssd.params import SsdParams, TfrecordParams
from trashnet.errors import UserError
from trashnet.params import RENAMED_KEYS, Params, load_params, load_seed, set_params
from trashnet.retention import RetentionParams

SHIPPED_FILE = REPOSITORY / "params.yaml"
SHIPPED = yaml.safe_load(SHIPPED_FILE.read_text(encoding="utf-8"))
MODELS: dict[str, type[Params]] = {
    "import": ImportParams,
    "split": SplitParams,
    "rebalance": RebalanceParams,
    "tfrecords": TfrecordParams,
    "sample": SampleParams,
    "evaluation": EvaluationParams,
    "gate": GateParams,
    "efficientdet": EfficientDetParams,
    "ssd": SsdParams,
    "export": ExportParams,
    "ingest": IngestParams,
    "labeling": LabelingParams,
    "selection": SelectionParams,
    "growth": GrowthParams,
    "retraining": RetrainingParams,
    "retention": RetentionParams,
}


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
        # A misspelt key would otherwise train with the default for hours.
        ("oven: {minutes: 12, degree: 200}", r"oven\.degree"),
        ("oven: {minutes: soon}", r"oven\.minutes"),
        ("oven: {}", r"oven\.minutes"),
        ("pan: {}", "section `oven` is missing"),
        ("", "section `oven` is missing"),
        ("oven: [", "not YAML"),
    ],
)
def test_an_invalid_section_is_refused_and_the_error_is_named(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """An unknown key, a wrong type, a missing value or section, a file that is not YAML."""
    with pytest.raises(UserError, match=complaint):
        load_params("oven", Oven, write(tmp_path, text))


def test_a_missing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """It says where to run, or which option names another file."""
    with pytest.raises(UserError, match="--params"):
        load_params("oven", Oven, tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["seed: -1", "seed: 4294967296", "seed: true", "seed: twenty", "seed: 1.5"])
def test_a_seed_is_a_whole_number_that_every_generator_takes(tmp_path: Path, text: str) -> None:
    """From 0 to 2**32 - 1, and neither a boolean nor text."""
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


def test_every_section_of_the_shipped_file_has_a_model() -> None:
    """A new section joins the table of models here, and so the test below."""
    assert SHIPPED.keys() - {"seed"} == MODELS.keys()


@pytest.mark.parametrize("section", MODELS)
def test_the_shipped_file_holds_every_default(section: str) -> None:
    """A key that a file leaves out has the shipped value."""
    model = MODELS[section]
    assert SHIPPED[section].keys() == model.model_fields.keys()
    assert load_params(section, model, SHIPPED_FILE) == model()


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_gives_an_error_that_names_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    """An old file is refused, whichever section is read, and `trashnet set` gives a hint."""
    section, _, name = new.partition(".")
    assert name in SHIPPED[section]
    old_section, _, old_name = old.partition(".")
    path = write(tmp_path, yaml.safe_dump({"seed": 1, old_section: {old_name: 1}}))
    with pytest.raises(UserError, match=rf"`{old}` is `{new}` now"):
        load_seed(path)
    with pytest.raises(UserError, match=rf"no `{old}` to set; it is `{new}` now"):
        set_params({old: "1"}, write(tmp_path, SHIPPED_FILE.read_text(encoding="utf-8")))


def test_every_old_key_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    """One message is enough to repair the file."""
    path = write(tmp_path, "triage: {floor: 0.1, pool: 10}\nselection: {min_score: 0.1}\n")
    with pytest.raises(UserError) as caught:
        load_params("selection", SelectionParams, path)
    assert "`triage.floor` is `selection.min_score` now" in str(caught.value)
    assert "`triage.pool` is `selection.candidates_per_task` now" in str(caught.value)


def test_dvc_reads_every_value_of_the_shipped_parameters() -> None:
    """YAML knows dates, DVC does not: one of them would stop every stage, `dvc add` too."""

    def values(node: object) -> Iterator[object]:
        if isinstance(node, dict | list):
            for child in node.values() if isinstance(node, dict) else node:
                yield from values(child)
        else:
            yield node

    assert {type(value) for value in values(SHIPPED)} <= {int, float, str, bool, type(None)}
