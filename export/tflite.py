"""The trained student as two TFLite files: the float network for comparison, the int8 one for bins."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from dataset import Frames
from export.compiler import compile_model, find_compiler
from export.edgetpu import ON_TPU, EdgeTpuReport, check_model
from export.flatbuffer import OUTPUT_NAMES, append_labels, pack_model, parse_model, set_outputs
from export.params import ExportParams
from export.postprocess import freeze, save_with_postprocess
from training.ssd import load_trained
from training.ssd.model import model_anchors
from trashnet.detectors._tflite import normalise, stretch
from trashnet.errors import UserError
from trashnet.files import write_json, write_text
from trashnet.models import EDGETPU_FILE, EDGETPU_REPORT_FILE, LABELS_FILE, SSD_FLOAT, SSD_INT8
from trashnet.progress import track


@dataclass(frozen=True, slots=True)
class TfliteReport:
    """What was written, and what is known of it."""

    out: Path
    float_bytes: int
    int8_bytes: int
    calibration_images: int
    edgetpu: EdgeTpuReport

    def summary(self) -> str:
        """The export in three lines."""
        edgetpu = self.edgetpu
        compiler = "run, all its gates passed" if edgetpu.compiler else "not run (not on PATH)"
        return (
            f"{self.out / SSD_FLOAT.file}: {self.float_bytes / 2**20:.1f} MiB\n"
            f"{self.out / SSD_INT8.file}: {self.int8_bytes / 2**20:.1f} MiB, calibrated on "
            f"{self.calibration_images} images, "
            f"{edgetpu.count(ON_TPU)} of {edgetpu.operator_count} operators for the EdgeTPU, "
            f"{edgetpu.weight_bytes / 2**20:.2f} MiB of weights\n"
            f"edgetpu_compiler: {compiler}"
        )


def export_tflite(trained: Path, calibration: Frames, out: Path, params: ExportParams) -> TfliteReport:
    """Write ``ssd_float.tflite``, ``ssd_int8.tflite``, ``labels.txt`` and, last, ``edgetpu.json``.

    Both models take one square image and give boxes (y0, x0, y1, x1 in [0, 1]), class indices, scores and
    their count. The int8 model takes raw uint8 pixels, the float model the same pixels as float32 in [-1, 1].
    Where ``edgetpu_compiler`` is on ``PATH`` its result is a gate too and is kept as
    ``ssd_int8_edgetpu.tflite``.

    Args:
        trained: The folder that :func:`training.ssd.train` wrote.
        calibration: Frames of the train split, of which ``params.calibration_images`` are drawn.
        out: The folder to write to.
        params: How to quantise, and what the post-processing keeps.

    Raises:
        UserError: ``trained`` is unfinished, there is no frame to calibrate on, or a gate fails; then nothing
            in ``out`` is changed.
    """
    model, description = load_trained(trained)
    class_names = list(description["classes"])
    images = calibration_images(calibration, model.input_shape[1], params)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        work = Path(folder)
        saved_model = work / "saved_model"
        save_with_postprocess(freeze(model), model_anchors(model), len(class_names), params, saved_model)
        for name, representative in ((SSD_FLOAT.file, None), (SSD_INT8.file, images)):
            converted = _convert(saved_model, representative)
            (work / name).write_bytes(_set_output_contract(converted, name, params))
            append_labels(work / name, LABELS_FILE, class_names)
        report = _check(work)
        if not report.ok:
            failures = "\n".join(f"  {failure}" for failure in report.failures)
            raise UserError(
                f"{out / SSD_INT8.file}: not written, for the EdgeTPU would not take "
                f"it:\n{failures}\n{report.table()}"
            )
        _replace_files(work, out, class_names, report)
    float_bytes, int8_bytes = ((out / model.file).stat().st_size for model in (SSD_FLOAT, SSD_INT8))
    return TfliteReport(out, float_bytes, int8_bytes, len(images), report)


def calibration_images(frames: Frames, side: int, params: ExportParams) -> list[NDArray[np.float32]]:
    """A seeded choice of the frames, prepared exactly as the detector prepares an image.

    The converter sets the scale of each tensor by the extremes it sees. An all -1 and an all +1 image, added
    when calibrating, make the scale of the input exactly 1/127.5, so that a bin can feed raw pixels.

    Returns:
        float32 ``(1, side, side, 3)`` each, in [-1, 1].

    Raises:
        UserError: There is no frame.
    """
    if not len(frames):
        raise UserError("no frame to calibrate the int8 model on: the train split is empty")
    count = min(params.calibration_images, len(frames))
    chosen = np.sort(np.random.default_rng(params.seed).choice(len(frames), count, replace=False))
    return [normalise(stretch(frames[int(i)].image(), side))[None] for i in chosen]


def _convert(saved_model: Path, images: list[NDArray[np.float32]] | None) -> bytes:
    """To float where there are no images, else to int8."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.allow_custom_ops = True  # the post-processing
    if images is not None:

        def representative() -> Iterator[list[NDArray[np.float32]]]:
            for extreme in (-1.0, 1.0):
                yield [np.full_like(images[0], extreme)]
            for image in track(images, len(images), "calibrate int8", "image"):
                yield [image]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        # The outputs stay float: they come from the post-processing.
        converter.inference_input_type = tf.uint8
    return bytes(converter.convert())


def _set_output_contract(data: bytes, name: str, params: ExportParams) -> bytes:
    model: Any = parse_model(data, name)
    operators = model.subgraphs[0].operators or []
    if not operators or len(operators[-1].outputs) != len(OUTPUT_NAMES):
        raise UserError(
            f"{name}: the converter left {len(operators)} operators and no post-processing at the end; "
            "nothing was written"
        )
    set_outputs(model, params.max_detections)
    return pack_model(model)


def _check(work: Path) -> EdgeTpuReport:
    """Every gate that needs no labels, and those of the compiler where there is one."""
    report = check_model((work / SSD_INT8.file).read_bytes(), SSD_INT8.file)
    program = find_compiler()
    if program is None or not report.ok:
        return report
    log, compiled = compile_model(program, work / SSD_INT8.file, work)
    if log.succeeded and compiled.is_file() and compiled != work / EDGETPU_FILE:
        compiled.replace(work / EDGETPU_FILE)
    return replace(report, gates=report.gates + log.gates(), compiler=log.as_json())


def _replace_files(work: Path, out: Path, class_names: list[str], report: EdgeTpuReport) -> None:
    # The report is written last: its presence means that the files beside it belong together.
    (out / EDGETPU_REPORT_FILE).unlink(missing_ok=True)
    for name in (SSD_FLOAT.file, SSD_INT8.file, EDGETPU_FILE):
        if (work / name).is_file():
            (work / name).chmod(0o644)
            (work / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)  # the compiled model of an older export
    write_text(out / LABELS_FILE, "".join(f"{name}\n" for name in class_names))
    write_json(out / EDGETPU_REPORT_FILE, report.as_json())
    shutil.rmtree(work / "saved_model")
