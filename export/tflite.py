"""The trained student as two TFLite files: the float network for measuring, the int8 one for bins."""

import json
import os
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
from export.flatbuffer import append_labels, pack_model, parse_model, set_outputs
from export.params import ExportParams
from export.postprocess import freeze, save_with_postprocess
from training.ssd.model import Ssd, anchors_of, build_model
from trashnet.detectors._tflite import LABELS, fit_image, normalise
from trashnet.errors import UserError
from trashnet.files import write_json, write_text

FLOAT, INT8, COMPILED, REPORT = (
    "ssd_float.tflite",
    "ssd_int8.tflite",
    "ssd_int8_edgetpu.tflite",
    "edgetpu.json",
)


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
        total = sum(row.count for row in self.edgetpu.rows)
        compiler = "run, all its gates passed" if self.edgetpu.compiler else "not run (not on PATH)"
        return (
            f"{self.out / FLOAT}: {self.float_bytes / 2**20:.1f} MiB\n"
            f"{self.out / INT8}: {self.int8_bytes / 2**20:.1f} MiB, calibrated on {self.calibration_images} images, "
            f"{self.edgetpu.count(ON_TPU)} of {total} operators for the EdgeTPU, {self.edgetpu.weight_bytes / 2**20:.2f} MiB of weights\n"
            f"edgetpu_compiler: {compiler}"
        )


def export_tflite(trained: Path, calibration: Frames, out: Path, params: ExportParams) -> TfliteReport:
    """Write ``ssd_float.tflite``, ``ssd_int8.tflite``, ``labels.txt`` and, last, ``edgetpu.json`` to the folder ``out``.

    ``trained`` is what :func:`training.ssd.train` wrote; ``calibration`` are frames of the train split, of
    which ``params.calibration_images`` are drawn. Both files take one square image and give boxes (y0, x0,
    y1, x1 in [0, 1]), class indices, scores and their count; the int8 file takes raw uint8 pixels, the float
    file the same pixels as float32 in [-1, 1].

    Where ``edgetpu_compiler`` is on ``PATH`` its result is a gate too and is kept as
    ``ssd_int8_edgetpu.tflite``.

    Raises :class:`UserError` if ``trained`` is unfinished, if there is no frame to calibrate on, or if any
    gate fails: then nothing in ``out`` is changed.
    """
    model, names = load_trained(trained)
    images = calibration_images(calibration, model.input_shape[1], params)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        work = Path(folder)
        saved = work / "saved_model"
        save_with_postprocess(freeze(model), anchors_of(model), len(names), params, saved)
        for name, data in ((FLOAT, _convert(saved, None)), (INT8, _convert(saved, images))):
            (work / name).write_bytes(_finish(data, name, params))
            append_labels(work / name, LABELS, names)
        report = _judge(work, out)
        if not report.ok:
            listed = "\n".join(f"  {failure}" for failure in report.failures)
            raise UserError(
                f"{out / INT8}: not written, for the EdgeTPU would not take it:\n{listed}\n{report.table()}"
            )
        _publish(work, out, names, report)
    return TfliteReport(out, (out / FLOAT).stat().st_size, (out / INT8).stat().st_size, len(images), report)


def load_trained(folder: Path) -> tuple[Ssd, list[str]]:
    """The trained network and its class names. Raises :class:`UserError` if the folder is unfinished or does not fit together."""
    try:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        model = build_model(described["image_size"], len(described["classes"]))
        model.load_weights(folder / "model.weights.h5")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no finished SSD model here ({error}). `dvc repro train_ssd` trains one."
        ) from None
    return model, list(described["classes"])


def calibration_images(frames: Frames, side: int, params: ExportParams) -> list[NDArray[np.float32]]:
    """Images ``(1, S, S, 3)`` in [-1, 1], prepared exactly as the detector does; a seeded choice of the frames.

    The converter sets each tensor's scale by the extremes it sees. An all -1 and an all +1 image, added when
    calibrating, make the input's scale exactly 1/127.5, so that a bin can feed raw pixels.
    """
    if not len(frames):
        raise UserError("no frame to calibrate the int8 model on: the train split is empty")
    count = min(params.calibration_images, len(frames))
    chosen = np.sort(np.random.default_rng(params.seed).choice(len(frames), count, replace=False))
    return [normalise(fit_image(frames[int(i)].image(), side))[None] for i in chosen]


def _convert(saved: Path, images: list[NDArray[np.float32]] | None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    converter.allow_custom_ops = True  # the post-processing
    if images is not None:

        def representative() -> Iterator[list[NDArray[np.float32]]]:
            for extreme in (-1.0, 1.0):
                yield [np.full_like(images[0], extreme)]
            for image in images:
                yield [image]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = (
            tf.uint8
        )  # the outputs stay float: they come from the post-processing
    return bytes(converter.convert())


def _finish(data: bytes, name: str, params: ExportParams) -> bytes:
    model: Any = parse_model(data, name)
    operators = model.subgraphs[0].operators or []
    if not operators or len(operators[-1].outputs) != 4:
        raise UserError(
            f"{name}: the converter left {len(operators)} operators and no post-processing at the end; nothing was written"
        )
    set_outputs(model, params.max_detections)
    return pack_model(model)


def _judge(work: Path, out: Path) -> EdgeTpuReport:
    """Every gate that needs no labels, and the compiler's where there is one."""
    report = check_model((work / INT8).read_bytes(), INT8)
    program = find_compiler()
    if program is None or not report.ok:
        return report
    log, compiled = compile_model(program, work / INT8, work)
    if log.succeeded and compiled.is_file() and compiled != work / COMPILED:
        compiled.replace(work / COMPILED)
    return replace(report, gates=report.gates + log.gates(), compiler=log.as_json())


def _publish(work: Path, out: Path, names: list[str], report: EdgeTpuReport) -> None:
    (out / REPORT).unlink(
        missing_ok=True
    )  # written last: its presence means that the files beside it belong together
    for name in (FLOAT, INT8, COMPILED):
        if (work / name).is_file():
            (work / name).chmod(0o644)
            os.replace(work / name, out / name)
        else:
            (out / name).unlink(missing_ok=True)  # an older compiled model is not this one's
    write_text(out / LABELS, "".join(f"{name}\n" for name in names))
    write_json(out / REPORT, report.as_json())
    shutil.rmtree(work / "saved_model")
