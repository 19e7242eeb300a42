"""Real int8 files in a store, through the whole gate: what the demo's brief training makes, the demo's
trained student, and that file with two class names exchanged.
"""

import zipfile
from pathlib import Path

import pytest

from benchmarks.support.memory_store import MemoryStore
from dataset import GateSet, Log
from evaluation import EvaluationParams
from evaluation.gate import GateParams
from export import (
    Candidate,
    ExportParams,
    GateCriteria,
    Judgement,
    judge_candidate,
    load_champion,
    override,
    publish_candidate,
)
from export.flatbuffer import append_labels
from operations.demo import SMALL_PARAMS
from tests.evaluation.drawn_gate_set import CLASSES
from tests.shipped_data import shipped_student
from trashnet.models import LABELS_FILE, STUDENT
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

# on a machine with other work the clock says little about sixty frames
GATE = GateParams(max_latency_ratio=1000.0, resamples=500, flips=1000)


@pytest.fixture
def criteria(gate_set: GateSet, taxonomy: Taxonomy, tmp_path: Path) -> GateCriteria:
    """The gate as shipped, with fewer draws."""
    return GateCriteria(gate_set, taxonomy, EvaluationParams(), GATE, 20, tmp_path / "models")


@pytest.fixture(scope="module")
def brief(sample_log: Log, taxonomy: Taxonomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo's retraining makes of a random backbone: its very parameters, on sixteen frames."""
    # not above: TensorFlow must not be imported before other files' tests import torchvision
    from export import export_tflite
    from training.ssd import SsdParams, TfrecordParams, train, write_tfrecords

    root = tmp_path_factory.mktemp("brief")
    frames = sample_log.frames("train")
    write_tfrecords(frames, sample_log.frames("val"), taxonomy, root / "tfrecords", TfrecordParams(), seed=20)
    numbers = {key[4:]: value for key, value in SMALL_PARAMS.items() if key.startswith("ssd.")}
    params = SsdParams.model_validate(numbers, strict=False)
    train(root / "tfrecords", taxonomy, params, 20, root / "ssd", root / "live", root / "checkpoints")
    export_tflite(root / "ssd", frames, root / "models", ExportParams(calibration_images=16))
    return root / "models" / STUDENT.file


def publish(store: MemoryStore, file: Path, number: int) -> Candidate:
    """A candidate of this dataset number whose student is this file."""
    models, dataset = {STUDENT.file: file}, f"data-{number:05}"
    return publish_candidate(store, models, {}, dataset=dataset, turns=(), commit="c0ffee", scores={})


def outcomes(judgement: Judgement) -> dict[str, str]:
    """Each finding's outcome, by its name."""
    return {finding.name: finding.outcome for finding in judgement.models["student"].verdict.findings}


def exchange_names(file: Path, out: Path, one: str, other: str) -> Path:
    """The same network, which now calls two classes by each other's name."""
    with zipfile.ZipFile(file) as archive:
        names = archive.read(LABELS_FILE).decode().splitlines()
        begin = min(info.header_offset for info in archive.infolist())
    swapped = {one: other, other: one}
    out.parent.mkdir()
    out.write_bytes(file.read_bytes()[:begin])
    append_labels(out, LABELS_FILE, [swapped.get(name, name) for name in names])
    return out


def test_the_untrained_student_of_the_demo_is_blocked_by_the_minima(
    brief: Path, criteria: GateCriteria, tmp_path: Path
) -> None:
    """Before there is a champion, and after: it is never used."""
    store = MemoryStore()
    judgement = judge_candidate(store, publish(store, brief, 1), criteria)
    assert judgement.outcome == "blocks"
    assert outcomes(judgement)["AP50"] == "blocks"
    assert load_champion(store, "student") is None
    trained = publish(store, shipped_student(tmp_path), 2)
    override(store, trained.version, ["student"], by="ann", reason="it was trained on other drawn scenes")
    again = judge_candidate(store, publish(store, brief, 3), criteria)
    assert (again.outcome, again.models["student"].champion) == ("blocks", trained.version)
    champion = load_champion(store, "student")
    assert champion is not None
    assert champion.version == trained.version


def test_the_demos_student_reaches_the_minima_and_a_copy_of_it_is_not_blocked(
    criteria: GateCriteria, tmp_path: Path
) -> None:
    """Nobody measured what int8 costs it, so it is held; nothing else speaks against it, or its copy."""
    store, file = MemoryStore(), shipped_student(tmp_path)
    first = publish(store, file, 1)
    judgement = judge_candidate(store, first, criteria)
    held = {name for name, outcome in outcomes(judgement).items() if outcome != "passes"}
    assert held == {"AP that int8 loses"}
    override(store, first.version, ["student"], by="ann", reason="to begin with")
    copy = judge_candidate(store, publish(store, file, 2), criteria)
    assert copy.outcome == "holds"
    assert {f.estimate for f in copy.models["student"].verdict.findings[:2]} == {0.0}


def test_a_file_that_exchanges_two_classes_of_different_streams_is_blocked_and_they_are_named(
    criteria: GateCriteria, taxonomy: Taxonomy, tmp_path: Path
) -> None:
    """The network is the champion's to the last bit; only the names in the file are wrong."""
    names = [taxonomy.name_of[class_id] for class_id in range(1, CLASSES + 1)]
    stream = {name: taxonomy.stream_of[taxonomy.id_of[name]] for name in names}
    one, other = names[0], next(name for name in names if stream[name] != stream[names[0]])
    store, file = MemoryStore(), shipped_student(tmp_path)
    champion = publish(store, file, 1)
    override(store, champion.version, ["student"], by="ann", reason="to begin with")
    swapped = exchange_names(file, tmp_path / "swapped" / STUDENT.file, one, other)
    judgement = judge_candidate(store, publish(store, swapped, 2), criteria)
    assert judgement.outcome == "blocks"
    assert {f"class {one}", f"class {other}"} & outcomes(judgement).keys()
