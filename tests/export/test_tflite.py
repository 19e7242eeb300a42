"""The student's TFLite files: the same function as the Keras model, in int8 nearly so, and fit for the chip."""

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
from tests.overfitted import SIDE, KerasDetector, Overfitted, average_precision, overfitted_ssd
from trashnet.detectors import open_detector
from trashnet.detectors._tflite import TfliteDetector, fit_image, normalise
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

PARAMS = ExportParams(calibration_images=16)


@pytest.fixture(scope="module")
def learnt(sample_log: Log, taxonomy: Taxonomy) -> Overfitted:
    """A student that knows eight frames by heart."""
    return overfitted_ssd(sample_log, taxonomy)


@pytest.fixture(scope="module")
def exported(
    learnt: Overfitted, sample_log: Log, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TfliteReport]:
    """Its two files, where no ``edgetpu_compiler`` is."""
    out = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(out))
        return out, export_tflite(learnt.folder, sample_log.frames("train"), out, PARAMS)


def _inner(path: Path, pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Encodings and scores, as floats, that the post-processing is given for one prepared image ``(1, S, S, 3)``."""
    model = parse_model(path.read_bytes(), path.name)
    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    return [interpreter.get_tensor(int(index))[0] for index in model.subgraphs[0].operators[-1].inputs[:2]]


def test_both_files_pass_and_are_described(exported: tuple[Path, TfliteReport], taxonomy: Taxonomy) -> None:
    """101 operators, 98 for the chip; the report says that no compiler was run, and does not call that passed."""
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


def test_the_float_file_is_the_keras_model(exported: tuple[Path, TfliteReport], learnt: Overfitted) -> None:
    """Encodings and scores before the post-processing differ by rounding only."""
    image = learnt.frames[0].image()
    wanted = KerasDetector(learnt.folder).raw([image])
    found = _inner(exported[0] / "ssd_float.tflite", normalise(fit_image(image, SIDE))[None])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs[0], atol=2e-4)


def test_int8_boxes_agree_with_float_boxes(
    exported: tuple[Path, TfliteReport], learnt: Overfitted, taxonomy: Taxonomy
) -> None:
    """What the float file is sure of, the int8 file sees too: the same class, overlapping by 0.8 or more, scored alike."""
    images = [frame.image() for frame in learnt.frames]
    pairs = zip(
        *(
            open_detector(exported[0] / f"ssd_{kind}.tflite", taxonomy).detect(images)
            for kind in ("float", "int8")
        ),
        strict=True,
    )
    compared = 0
    for sure, quantized in ((a.above(0.5), b) for a, b in pairs):
        for box, class_id, score in zip(sure.boxes, sure.class_ids, sure.scores, strict=True):
            same = quantized.class_ids == class_id
            overlap = _iou(box, quantized.boxes[same])
            assert overlap.max(initial=0) > 0.8
            assert abs(quantized.scores[same][overlap.argmax()] - score) < 0.15
            compared += 1
    assert compared >= 16  # of 24 items


def test_int8_loses_less_than_a_point_where_the_model_is_sure(
    exported: tuple[Path, TfliteReport], learnt: Overfitted, taxonomy: Taxonomy
) -> None:
    """AP@0.5 on the frames learnt: both above 0.9."""
    for kind in ("float", "int8"):
        assert (
            average_precision(open_detector(exported[0] / f"ssd_{kind}.tflite", taxonomy), learnt.frames)
            > 0.9
        )


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    corner = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(corner, 0), axis=1)
    return np.asarray(shared / (box[2] * box[3] + others[:, 2] * others[:, 3] - shared))


def test_a_model_that_fails_a_gate_replaces_nothing(
    exported: tuple[Path, TfliteReport], learnt: Overfitted, sample_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the conversion leaves too few operators, the files of the last good export stay, and the gate is named."""
    out, _ = exported
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    _convert_as_before(monkeypatch, out)
    monkeypatch.setattr("export.edgetpu.LEAST_OPERATORS", 1000)
    with pytest.raises(UserError, match="at least 1000 operators: 101"):
        export_tflite(learnt.folder, sample_log.frames("train"), out, PARAMS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def _convert_as_before(patch: pytest.MonkeyPatch, out: Path) -> None:
    """The conversion takes half a minute: where it is not what a test is about, what it gave the first time is given again."""
    data = {name: (out / name).read_bytes() for name in ("ssd_float.tflite", "ssd_int8.tflite")}
    patch.setattr(
        "export.tflite._convert",
        lambda saved, images: data["ssd_float.tflite" if images is None else "ssd_int8.tflite"],
    )


def test_an_unfinished_training_is_not_exported(tmp_path: Path, sample_log: Log) -> None:
    """Without model.json, which is written last, there is no model."""
    with pytest.raises(UserError, match="no finished SSD model here"):
        export_tflite(tmp_path, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert not (tmp_path / "out").exists()


def test_nothing_to_calibrate_on(learnt: Overfitted, tmp_path: Path) -> None:
    """An empty train split is said, not converted with random ranges."""
    with pytest.raises(UserError, match="no frame to calibrate"):
        export_tflite(learnt.folder, Frames([]), tmp_path / "out", PARAMS)


# What edgetpu_compiler 16.0 prints. The program is closed and is not here: these tests run a script of that
# name in its place, so they show that its words are understood and acted on, not that a model compiles.
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
    """A stand-in ``edgetpu_compiler`` on PATH that says what ``says.txt`` beside it holds, and writes a file as the real one would."""
    program = tmp_path / "bin/edgetpu_compiler"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f"cat '{program.parent}/says.txt'\n"
        'while [ "$1" != -o ]; do shift; done\n'
        'printf compiled > "$2/ssd_int8_edgetpu.tflite"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program.parent / "says.txt"


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
def test_the_compilers_words_are_gates(log: str, failed: list[str]) -> None:
    """'Compiled successfully' passes nothing by itself: google-coral/edgetpu issue 358 ended with no operator on the chip."""
    found = [f"{gate.name}: {gate.found}" for gate in parse_log(log, succeeded=True).gates() if not gate.ok]
    assert len(found) >= len(failed)
    for said in failed:
        assert any(line.startswith(said) for line in found), found
    if not failed:
        assert found == []


def test_a_compiler_on_the_path_is_run_and_believed(
    compiler: Path,
    learnt: Overfitted,
    sample_log: Log,
    tmp_path: Path,
    exported: tuple[Path, TfliteReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a good log the compiled model is kept and the log stands in the report; with 'zero operations' nothing is written."""
    _convert_as_before(monkeypatch, exported[0])
    compiler.write_text(ZERO_LOG)
    with pytest.raises(UserError, match="maps all operators but 3: 0 of 101"):
        export_tflite(learnt.folder, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert list((tmp_path / "out").iterdir()) == []
    compiler.write_text(GOOD_LOG)
    report = export_tflite(learnt.folder, sample_log.frames("train"), tmp_path / "out", PARAMS)
    assert (tmp_path / "out/ssd_int8_edgetpu.tflite").read_text() == "compiled"
    said = json.loads((tmp_path / "out/edgetpu.json").read_text())["compiler"]
    assert (said["on_tpu"], said["on_cpu"], said["off_chip"], said["version"]) == (98, 3, 0, "16.0.384591198")
    assert "run, all its gates passed" in report.summary()


# The detector on a network of constants: what the post-processing and the detector make of known encodings
# and scores.
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
        nothing = tf.reduce_mean(image) * 0.0
        return ENCODINGS + nothing, SCORES + nothing

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
    """A model that always sees the same three boxes of classes 1, 0 and 2; no labels."""
    return _constant_model(tmp_path_factory.mktemp("constant"), None)


def test_decoding_and_nms_by_hand(constant: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The second box overlaps the first by 0.90 and goes, though of another class; the third is cut at the image's edges."""
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


def test_labels_beside_the_model_serve_too(constant: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A compiler drops what is packed into the file; the label file beside it is Coral's own convention."""
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
    """A file that was cut off is named, with what to do."""
    path = tmp_path / "cut.tflite"
    path.write_bytes(constant.read_bytes()[:400])
    (tmp_path / "labels.txt").write_text("Shoe\n")
    with pytest.raises(UserError, match=r"cut\.tflite: not a TFLite model"):
        open_detector(path, taxonomy)


def test_preparing_an_image_is_tensorflows_resize_to_one_grey_level() -> None:
    """Training resizes with TensorFlow, the bin with OpenCV: the same sampling, up and down, to rounding."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for shape in ((37, 53, 3), (480, 640, 3)):
        image = rng.integers(0, 256, shape, np.uint8)
        wanted = tf.image.resize(image, (96, 96)).numpy()
        assert np.abs(fit_image(image, 96) - wanted).max() <= 1.0


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
