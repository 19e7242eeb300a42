"""The exported student: a ``.tflite`` file with its post-processing inside."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trashnet.boxes import xyxy_to_xywh
from trashnet.detectors._types import Detections
from trashnet.errors import UserError
from trashnet.models import LABELS_FILE
from trashnet.taxonomy import Taxonomy

NUM_OUTPUTS = 4  # boxes, classes, scores, count: their order is the contract, compilers drop the names


def stretch(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Stretch an RGB image to a square, bilinear without antialiasing.

    The bin, the calibration of the int8 model and the evaluation all do this. Training resizes with
    ``tf.image.resize``, which is the same sampling in floating point: the two differ by less than one grey
    level, because OpenCV rounds its weights to 11 bits.

    Args:
        image: uint8 ``(h, w, 3)``.
        side: The new width and height in pixels.

    Returns:
        uint8 ``(side, side, 3)``.
    """
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey levels of any shape to float32 in [-1, 1], the input of the float network.

    The int8 network's input scale means the same for raw pixels.

    >>> normalise(np.array([0, 255], np.uint8)).tolist()
    [-1.0, 1.0]
    """
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


class TfliteDetector:
    """SSD in TFLite, with float32 or uint8 input, run by ai-edge-litert on the CPU."""

    def __init__(self, path: Path, taxonomy: Taxonomy, *, num_threads: int | None = None) -> None:
        """Open the file.

        Raises:
            UserError: The file is no such model, or its labels are missing or unknown to the taxonomy.
        """
        from ai_edge_litert.interpreter import Interpreter

        self._path = path
        self._class_ids = _read_class_ids(path, taxonomy)
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: not a TFLite model that runs here ({error}). "
                "Export it again: `dvc repro export_ssd`."
            ) from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._output_indices = [int(detail["index"]) for detail in outputs]
        shape = inputs[0]["shape"].tolist()
        dtype = inputs[0]["dtype"]
        takes_one_square_image = (
            len(inputs) == 1 and len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2]
        )
        if not takes_one_square_image or len(outputs) != NUM_OUTPUTS:
            raise UserError(
                f"{path}: not an SSD detector: it takes {shape} and gives {len(outputs)} tensors, not boxes, "
                "classes, scores and their count"
            )
        if dtype not in (np.uint8, np.float32):
            raise UserError(
                f"{path}: takes {np.dtype(dtype).name} images; a detector for bins takes uint8 pixels (or "
                "float32 in [-1, 1])"
            )
        self._input_index, self.image_size = int(inputs[0]["index"]), int(shape[1])
        self._takes_pixels = dtype == np.uint8

    @property
    def name(self) -> str:
        """The stem of its file."""
        return self._path.stem

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As :meth:`Detector.detect` says, one image after the other: the EdgeTPU's batch size is one."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        pixels = stretch(image, self.image_size)[None]
        self._interpreter.set_tensor(self._input_index, pixels if self._takes_pixels else normalise(pixels))
        self._interpreter.invoke()
        outputs = (self._interpreter.get_tensor(index) for index in self._output_indices)
        boxes, classes, scores, counts = outputs
        count = int(counts[0])
        return self._postprocess(
            boxes[0, :count], classes[0, :count].astype(np.int64), scores[0, :count], image.shape
        )

    def _postprocess(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        scores: NDArray[np.float32],
        shape: tuple[int, ...],
    ) -> Detections:
        """From (y0, x0, y1, x1) in [0, 1] to (x, y, w, h) in pixels, clipped.

        A box outside the image is left out.
        """
        height, width = shape[:2]
        if len(classes) and int(classes.max()) >= len(self._class_ids):
            raise UserError(
                f"{self._path}: predicts class {int(classes.max())}, but {LABELS_FILE} has "
                f"{len(self._class_ids)} lines"
            )
        y0, x0, y1, x1 = (np.clip(boxes, 0.0, 1.0) * np.array([height, width, height, width], np.float32)).T
        inside = (x1 > x0) & (y1 > y0)
        order = np.flatnonzero(inside)[np.argsort(-scores[inside], kind="stable")]
        return Detections(
            boxes=xyxy_to_xywh(np.stack([x0, y0, x1, y1], axis=1))[order].astype(np.float32),
            class_ids=self._class_ids[classes[order]],
            scores=np.clip(scores[order], 0.0, 1.0).astype(np.float32),
        )


def _read_class_ids(path: Path, taxonomy: Taxonomy) -> NDArray[np.int64]:
    """The taxonomy id of every class index, by name."""
    names = _read_labels(path)
    if unknown := [name for name in names if name not in taxonomy.id_of]:
        raise UserError(
            f"{path}: knows {', '.join(repr(name) for name in unknown[:5])}, which the taxonomy does not. "
            "Use the taxonomy it was trained with, or train again."
        )
    return np.array([taxonomy.id_of[name] for name in names], np.int64)


def _read_labels(path: Path) -> list[str]:
    """The class names in the model file (a zip at its end, by TFLite's convention), else those beside it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if LABELS_FILE in archive.namelist():
                return archive.read(LABELS_FILE).decode("utf-8").splitlines()
    beside = path.parent / LABELS_FILE
    if not beside.is_file():
        raise UserError(
            f"{path}: carries no {LABELS_FILE}, and there is none beside it; "
            "put the class names there, one per line"
        )
    return beside.read_text(encoding="utf-8").splitlines()
