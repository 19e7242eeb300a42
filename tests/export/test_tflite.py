"""The student's TFLite files: the function of the Keras model, in int8 nearly so, and fit for the chip."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from dataset import Frames, Log
from export import ExportParams, TfliteReport, check_edgetpu, export_tflite
from export.compiler import parse_log
from export.flatbuffer import append_labels, pack_model, parse_model
from tests.overfitted import IMAGE_SIZE, KerasDetector, Overfitted, average_precision, overfitted_ssd
from trashnet.boxes import iou
from trashnet.detectors import open_detector
from trashnet.detectors._tflite import TfliteDetector, normalise, stretch
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

PARAMS = ExportParams(calibration_images=16)


@pytest.fixture(scope="module")
def overfitted(sample_log: Log, taxonomy: Taxonomy) -> Overfitted:
    """A student overfitted to eight frames."""
    return overfitted_ssd(sample_log, taxonomy)


@pytest.fixture(scope="module")
def exported(
    overfitted: Overfitted, sample_log: Log, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TfliteReport]:
    """Its two files, exported without an ``edgetpu_compiler``."""
    out = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(out))
        return out, export_tflite(overfitted.folder, sample_log.frames("train"), out, PARAMS)


def _raw_heads(path: Path, pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
    """The encodings and scores that the post-processing takes, as floats, for one input ``(1, S, S, 3)``."""
    model = parse_model(path.read_bytes(), path.name)
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    return [interpreter.get_tensor(int(index))[0] for index in model.subgraphs[0].operators[-1].inputs[:2]]


def test_both_files_pass_and_are_described(exported: tuple[Path, TfliteReport], taxonomy: Taxonomy) -> None:
    """101 operators, 98 for the chip; the report says that no compiler was run, not that it passed."""
    out, report = exported
    assert report.edgetpu.ok
    described = json.loads((out / "edgetpu.json").read_text())
    assert (described["operator_count"], described["mappable"], described["compiler"]) == (101, 98, "not run")
    assert described["ok"]
    assert check_edgetpu(out / "ssd_int8.tflite").ok
    assert not check_edgetpu(out / "ssd_float.tflite").ok
    assert (out / "labels.txt").read_text().splitlines() == list(taxonomy.names)
    assert sorted(path.name for path in out.iterdir()) == [
        "edgetpu.json",
        "labels.txt",
        "ssd_float.tflite",
        "ssd_int8.tflite",
    ]


def test_the_float_file_is_the_keras_model(
    exported: tuple[Path, TfliteReport], overfitted: Overfitted
) -> None:
    """Encodings and scores before the post-processing differ by rounding only."""
    image = overfitted.frames[0].image()
    expected = KerasDetector(overfitted.folder).raw_heads([image])
    found = _raw_heads(exported[0] / "ssd_float.tflite", normalise(stretch(image, IMAGE_SIZE))[None])
    for tflite, keras in zip(found, expected, strict=True):
        np.testing.assert_allclose(tflite, keras[0], atol=2e-4)


def test_int8_boxes_agree_with_float_boxes(
    exported: tuple[Path, TfliteReport], overfitted: Overfitted, taxonomy: Taxonomy
) -> None:
    """A confident float detection has an int8 one of its class, with IoU above 0.8 and a close score."""
    images = [frame.image() for frame in overfitted.frames]
    pairs = zip(
        *(
            open_detector(exported[0] / f"ssd_{kind}.tflite", taxonomy).detect(images)
            for kind in ("float", "int8")
        ),
        strict=True,
    )
    compared = 0
    for confident, quantized in ((a.above(0.5), b) for a, b in pairs):
        for box, class_id, score in zip(confident.boxes, confident.class_ids, confident.scores, strict=True):
            same = quantized.class_ids == class_id
            overlap = iou(box[None], quantized.boxes[same])[0]
            assert overlap.max(initial=0) > 0.8
            assert abs(quantized.scores[same][overlap.argmax()] - score) < 0.15
            compared += 1
    assert compared >= 16  # of 24 items


def test_both_files_find_the_training_frames_items(
    exported: tuple[Path, TfliteReport], overfitted: Overfitted, taxonomy: Taxonomy
) -> None:
    """AP@0.5 on the training frames: both above 0.9."""
    for kind in ("float", "int8"):
        detector = open_detector(exported[0] / f"ssd_{kind}.tflite", taxonomy)
        assert average_precision(detector, overfitted.frames) > 0.9


def test_a_model_that_fails_a_gate_replaces_nothing(
    exported: tuple[Path, TfliteReport],
    overfitted: Overfitted,
    sample_log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a conversion with too few operators the last good files stay, and the gate is named."""
    out, _ = exported
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    _reuse_conversion(monkeypatch, out)
    monkeypatch.setattr("export.edgetpu.MIN_OPERATORS", 1000)
    with pytest.raises(UserError, match="at least 1000 operators: 101"):
        export_tflite(overfitted.folder, sample_log.frames("train"), out, PARAMS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def _reuse_conversion(patch: pytest.MonkeyPatch, out: Path) -> None:
    """Return the first conversion again: it takes half a minute and is not what the test is about."""
    data = {name: (out / name).read_bytes() for name in ("ssd_float.tflite", "ssd_int8.tflite")}
    patch.setattr(
        "export.tflite._convert",
        lambda saved_model, images: data["ssd_float.tflite" if images is None else "ssd_int8.tflite"],
    )


def test_an_unfinished_training_is_not_exported(tmp_path: Path, sample_log: Log) -> None:
    """model.json is written last: without it there is no complete model."""
    with pytest.raises(UserError, match="no finished SSD model here"):
        export_tflite(tmp_path, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert not (tmp_path / "out").exists()


def test_an_empty_calibration_set_is_refused(overfitted: Overfitted, tmp_path: Path) -> None:
    """The model is not converted with random ranges."""
    with pytest.raises(UserError, match="no frame to calibrate"):
        export_tflite(overfitted.folder, Frames([]), tmp_path / "out", PARAMS)


# What edgetpu_compiler 16.0 prints. The program is closed and not available here: these tests run a script of
# that name, so they show that its log is parsed and acted on, not that a model compiles.
GOOD_LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1524 ms.

Input model: ssd_int8.tflite
Input size: 5.85MiB
Output model: ssd_int8_edgetpu.tflite
Output size: 6.31MiB
On-chip memory used for caching model parameters: 5.32MiB
On-chip memory remaining for caching model parameters: 2.23MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 101
Operation log: ssd_int8_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run on the CPU.
Number of operations that will run on Edge TPU: 98
Number of operations that will run on CPU: 3
"""
ZERO_LOG = (
    GOOD_LOG.replace("Edge TPU: 98", "Edge TPU: 0")
    .replace("CPU: 3", "CPU: 101")
    .replace("subgraphs: 1", "subgraphs: 0")
    .replace("5.32MiB", "0.00B")
)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ``edgetpu_compiler`` on PATH: it prints ``log.txt`` and writes a file as the real one does."""
    program = tmp_path / "bin/edgetpu_compiler"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f"cat '{program.parent}/log.txt'\n"
        'while [ "$1" != -o ]; do shift; done\n'
        'printf compiled > "$2/ssd_int8_edgetpu.tflite"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program.parent / "log.txt"


@pytest.mark.parametrize(
    ("log", "failed"),
    [
        (GOOD_LOG, []),
        (ZERO_LOG, ["compiler: maps all operators but 3: 0 of 101", "compiler: one EdgeTPU subgraph: 0"]),
        (
            GOOD_LOG.replace("0.00B", "1.22MiB"),
            ["compiler: no weights off chip: 1279263 bytes"],
        ),  # 1.22 * 2**20
        (
            "Edge TPU Compiler version 16.0.384591198\nInternal compiler error. Aborting! \n",
            ["compiler: succeeds: no"],
        ),
    ],
)
def test_the_compilers_log_becomes_gates(log: str, failed: list[str]) -> None:
    """'Compiled successfully' is not enough: google-coral/edgetpu issue 358 had no operator on the chip."""
    found = [f"{gate.name}: {gate.found}" for gate in parse_log(log, succeeded=True).gates() if not gate.ok]
    assert len(found) >= len(failed)
    for failure in failed:
        assert any(line.startswith(failure) for line in found), found
    if not failed:
        assert found == []


def test_a_compiler_on_the_path_decides(
    compiler: Path,
    overfitted: Overfitted,
    sample_log: Log,
    tmp_path: Path,
    exported: tuple[Path, TfliteReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A good log is reported and the compiled model kept; after a bad one nothing is written."""
    _reuse_conversion(monkeypatch, exported[0])
    compiler.write_text(ZERO_LOG)
    with pytest.raises(UserError, match="maps all operators but 3: 0 of 101"):
        export_tflite(overfitted.folder, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert list((tmp_path / "out").iterdir()) == []
    compiler.write_text(GOOD_LOG)
    report = export_tflite(overfitted.folder, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert (tmp_path / "out/ssd_int8_edgetpu.tflite").read_text() == "compiled"
    log = json.loads((tmp_path / "out/edgetpu.json").read_text())["compiler"]
    assert (log["on_tpu"], log["on_cpu"], log["off_chip"], log["version"]) == (98, 3, 0, "16.0.384591198")
    assert "run, all its gates passed" in report.summary()


# The detector on a network of constants: known encodings and scores go through the post-processing.
ANCHORS = np.array(
    [[0.5, 0.5, 0.4, 0.4], [0.5, 0.52, 0.4, 0.4], [0.05, 0.95, 0.2, 0.2]], np.float32
)  # centre y, x, height, width
SCORES = np.array([[[0.1, 0.9, 0.2], [0.8, 0.3, 0.1], [0.0, 0.1, 0.7]]], np.float32)
ENCODINGS = np.array(
    [[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5 * np.log(0.5)]]], np.float32
)  # the third is half as wide as its anchor


def _constant_model(folder: Path, labels: list[str] | None, params: ExportParams = PARAMS) -> Path:
    import tensorflow as tf

    from export.flatbuffer import set_outputs
    from export.postprocess import save_with_postprocess

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), tf.float32)])  # type: ignore[untyped-decorator]
    def network(image: Any) -> Any:
        zero = tf.reduce_mean(image) * 0.0
        return ENCODINGS + zero, SCORES + zero

    save_with_postprocess(network.get_concrete_function(), ANCHORS, 3, params, folder / "saved")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.allow_custom_ops = True
    model = parse_model(converter.convert(), "constant")
    set_outputs(model, params.max_detections)
    path = folder / "constant.tflite"
    path.write_bytes(pack_model(model))
    if labels is not None:
        append_labels(path, "labels.txt", labels)
    return path


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that always detects the same three boxes of classes 1, 0 and 2; no labels."""
    return _constant_model(tmp_path_factory.mktemp("constant"), None)


def test_decoding_and_nms_by_hand(constant: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The second box overlaps the first by 0.90 and is dropped, though of another class; one is clipped."""
    path = tmp_path / "constant.tflite"
    path.write_bytes(constant.read_bytes())
    append_labels(path, "labels.txt", ["Shoe", "Battery", "Cigarette"])
    (found,) = TfliteDetector(path, taxonomy).detect(
        [np.zeros((100, 200, 3), np.uint8)]
    )  # 200 wide, 100 high
    # first: x from (0.5 - 0.2) * 200 = 60, 80 wide; y from 30, 40 high third: centre (0.05, 0.95), 0.2 high,
    # 0.1 wide: x 0.90 to 1.00 -> 180, 20; y -0.05 to 0.15, cut at 0 -> 0, 15
    np.testing.assert_allclose(found.boxes, [[60, 30, 80, 40], [180, 0, 20, 15]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)
    assert found.class_ids.tolist() == [taxonomy.id_of["Battery"], taxonomy.id_of["Cigarette"]]


def test_nms_per_class_keeps_overlapping_items_of_different_classes(
    tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """With per_class_nms the second box survives beside the first."""
    path = _constant_model(tmp_path, ["Shoe", "Battery", "Cigarette"], ExportParams(per_class_nms=True))
    (found,) = TfliteDetector(path, taxonomy).detect([np.zeros((100, 100, 3), np.uint8)])
    assert found.class_ids.tolist()[:3] == [taxonomy.id_of[name] for name in ("Battery", "Shoe", "Cigarette")]


def test_labels_beside_the_model_are_used_too(constant: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The compiler drops the labels in the file; a label file beside it is Coral's own convention."""
    path = tmp_path / "constant.tflite"
    path.write_bytes(constant.read_bytes())
    with pytest.raises(UserError, match=r"carries no labels\.txt"):
        TfliteDetector(path, taxonomy)
    (tmp_path / "labels.txt").write_text("Shoe\nBattery\nCigarette\n")
    assert len(TfliteDetector(path, taxonomy).detect([np.zeros((50, 50, 3), np.uint8)])[0]) == 2
    (tmp_path / "labels.txt").write_text("Shoe\nBattery\nSpaceship\n")
    with pytest.raises(UserError, match="Spaceship"):
        TfliteDetector(path, taxonomy)
    (tmp_path / "labels.txt").write_text("Shoe\n")
    with pytest.raises(UserError, match=r"predicts class 2.*1 lines"):
        TfliteDetector(path, taxonomy).detect([np.zeros((50, 50, 3), np.uint8)])


def test_a_damaged_model_is_refused_by_the_detector(
    constant: Path, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """The message names the truncated file and the remedy."""
    path = tmp_path / "cut.tflite"
    path.write_bytes(constant.read_bytes()[:400])
    (tmp_path / "labels.txt").write_text("Shoe\n")
    with pytest.raises(UserError, match=r"cut\.tflite: not a TFLite model"):
        open_detector(path, taxonomy)


def test_preparing_an_image_is_tensorflows_resize_to_one_grey_level() -> None:
    """Training resizes with TensorFlow, the bin with OpenCV: the same sampling but for rounding."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for shape in ((37, 53, 3), (480, 640, 3)):
        image = rng.integers(0, 256, shape, np.uint8)
        expected = tf.image.resize(image, (96, 96)).numpy()
        assert np.abs(stretch(image, 96) - expected).max() <= 1.0


def test_min_runtime_metadata_is_old_enough(exported: tuple[Path, TfliteReport]) -> None:
    """The converter's own note of the runtime it needs agrees with our table."""
    model = parse_model((exported[0] / "ssd_int8.tflite").read_bytes(), "ssd_int8.tflite")
    assert isinstance(model, schema.ModelT)
    notes = {
        bytes(note.name): bytes(model.buffers[note.buffer].data).rstrip(b"\0").decode()
        for note in model.metadata
        if note.name != b"CONVERSION_METADATA"
    }
    assert tuple(map(int, notes[b"min_runtime_version"].split(".")))[:2] <= (2, 5)
