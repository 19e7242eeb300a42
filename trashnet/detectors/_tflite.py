import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashnet.detectors._types import Detections
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

LABELS = "labels.txt"  # inside the model file and beside it: one plain name per line, line 0 is class index 0
OUTPUTS = 4  # boxes, classes, scores, count: their order is the contract, compilers drop the names


def fit_image(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Stretch an RGB image ``(h, w, 3)`` to ``(side, side, 3)``, bilinear without antialiasing.

    What a bin, the calibration of the int8 model and the evaluation all do. Training resizes with
    ``tf.image.resize``, which is the same sampling in floating point: the two differ by less than one grey
    level, because OpenCV rounds its weights to 11 bits.
    """
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey levels to [-1, 1], float32: what the float network takes; the int8 network's input scale says the same of raw pixels."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


class TfliteDetector:
    """SSD in TFLite with its post-processing inside, float32 or uint8 input, run by ai-edge-litert on the CPU."""

    def __init__(self, path: Path, taxonomy: Taxonomy, *, num_threads: int | None = None) -> None:
        """Open ``path``. Raises :class:`UserError` for a file that is no such model, or whose labels are missing or unknown."""
        from ai_edge_litert.interpreter import Interpreter

        self._path = path
        self._class_ids = _class_ids(path, taxonomy)
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: not a TFLite model that runs here ({error}). Export it again: `dvc repro export_ssd`."
            ) from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._outputs = [int(detail["index"]) for detail in outputs]
        shape = inputs[0]["shape"].tolist()
        kind = inputs[0]["dtype"]
        if not (
            len(inputs) == 1
            and len(outputs) == OUTPUTS
            and len(shape) == 4
            and shape[0] == 1
            and shape[1] == shape[2]
        ):
            raise UserError(
                f"{path}: not an SSD detector: it takes {shape} and gives {len(outputs)} tensors, not boxes to count"
            )
        if kind not in (np.uint8, np.float32):
            raise UserError(
                f"{path}: takes {np.dtype(kind).name} images; a detector for bins takes uint8 pixels (or float32 in [-1, 1])"
            )
        self._input, self.image_size, self._raw = int(inputs[0]["index"]), int(shape[1]), kind == np.uint8

    @property
    def name(self) -> str:
        """The file's stem."""
        return self._path.stem

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect on RGB images, uint8 ``(height, width, 3)``, one after the other: the EdgeTPU's batch is one."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        pixels = fit_image(image, self.image_size)[None]
        self._interpreter.set_tensor(self._input, pixels if self._raw else normalise(pixels))
        self._interpreter.invoke()
        boxes, classes, scores, count = (self._interpreter.get_tensor(index) for index in self._outputs)
        found = int(count[0])
        return self._detections(
            boxes[0, :found], classes[0, :found].astype(np.int64), scores[0, :found], image.shape
        )

    def _detections(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        scores: NDArray[np.float32],
        shape: tuple[int, ...],
    ) -> Detections:
        """From (y0, x0, y1, x1) in [0, 1] to (x, y, w, h) in pixels, clipped; what lies outside the image altogether is left out."""
        height, width = shape[:2]
        if len(classes) and int(classes.max()) >= len(self._class_ids):
            raise UserError(
                f"{self._path}: predicts class {int(classes.max())}, but {LABELS} has {len(self._class_ids)} lines"
            )
        y0, x0, y1, x1 = (np.clip(boxes, 0.0, 1.0) * np.array([height, width, height, width], np.float32)).T
        keep = (x1 > x0) & (y1 > y0)
        order = np.flatnonzero(keep)[np.argsort(-scores[keep], kind="stable")]
        xywh = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)[order].astype(np.float32)
        return Detections(
            xywh, self._class_ids[classes[order]], np.clip(scores[order], 0.0, 1.0).astype(np.float32)
        )


def _class_ids(path: Path, taxonomy: Taxonomy) -> NDArray[np.int64]:
    """Taxonomy id of every class index, by name."""
    names = _labels(path)
    if unknown := [name for name in names if name not in taxonomy.id_of]:
        raise UserError(
            f"{path}: knows {', '.join(repr(name) for name in unknown[:5])}, which the taxonomy does not. Use the taxonomy it was "
            "trained with, or train again."
        )
    return np.array([taxonomy.id_of[name] for name in names], np.int64)


def _labels(path: Path) -> list[str]:
    """The names packed into the model file (TFLite's "associated files": a zip at its end), else those in the file beside it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            if LABELS in packed.namelist():
                return packed.read(LABELS).decode("utf-8").splitlines()
    beside = path.parent / LABELS
    if not beside.is_file():
        raise UserError(
            f"{path}: carries no {LABELS}, and there is none beside it; put the class names there, one per line"
        )
    return beside.read_text(encoding="utf-8").splitlines()
