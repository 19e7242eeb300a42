"""The exported teacher: an ``.onnx`` file with raw heads, and all that describes them in its metadata."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashnet.boxes import xyxy_to_xywh
from trashnet.detectors._postprocess import batched_nms, decode_boxes, pyramid_anchors, top_k
from trashnet.detectors._types import Detections
from trashnet.errors import UserError
from trashnet.letterbox import letterbox
from trashnet.taxonomy import Taxonomy

METADATA_PREFIX = "trashnet."
FORMAT = 1  # raised when the meaning of the metadata or of the inputs and outputs changes
MAX_CANDIDATES = 5000  # of all anchors and classes, as in EfficientDet's own post-processing
BATCH_SIZE = 8


class OnnxDetector:
    """EfficientDet in onnxruntime; decoding and non-maximum suppression per class in NumPy.

    Threads: all cores, or as many as the environment variable ``OMP_NUM_THREADS`` says.
    """

    def __init__(
        self,
        path: Path,
        taxonomy: Taxonomy,
        *,
        min_score: float = 0.001,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        """Open the file.

        Raises:
            UserError: The file is damaged or was not exported by this project, or the model knows a class
                that the taxonomy does not.
        """
        self._session = _open_session(path)
        metadata = read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        if unknown := [name for name in metadata["classes"] if name not in taxonomy.id_of]:
            raise UserError(
                f"{path}: knows {', '.join(unknown)}, which the taxonomy does not. "
                "Train and export it anew, or give the classes their names back."
            )
        self.name = path.stem
        self.image_size = int(metadata["image_size"])
        self.min_score, self.iou_threshold, self.max_detections = min_score, iou_threshold, max_detections
        self._class_ids = np.array([taxonomy.id_of[name] for name in metadata["classes"]], np.int64)
        self._fill = tuple(metadata["letterbox"]["fill"])
        self._anchors = pyramid_anchors(self.image_size, **metadata["anchors"])

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As :meth:`Detector.detect` says; at most ``max_detections`` per image, none below ``min_score``."""
        detections: list[Detections] = []
        for first in range(0, len(images), BATCH_SIZE):
            batch = images[first : first + BATCH_SIZE]
            inputs = [letterbox(image, self.image_size, self._fill) for image in batch]
            logits, codes = self._session.run(
                ["class_logits", "box_codes"], {"images": np.stack([pixels for pixels, _ in inputs])}
            )
            for index, (image, (_, scale)) in enumerate(zip(batch, inputs, strict=True)):
                height, width = image.shape[:2]
                detections.append(self._postprocess(logits[index], codes[index], width, height, scale))
        return detections

    def _postprocess(
        self, logits: NDArray[np.float32], codes: NDArray[np.float32], width: int, height: int, scale: float
    ) -> Detections:
        min_logit = np.log(self.min_score / (1 - self.min_score)) if self.min_score > 0 else -np.inf
        anchors, classes, top_logits = top_k(logits, MAX_CANDIDATES, float(min_logit))
        corners = decode_boxes(codes[anchors], self._anchors[anchors])
        corners = corners.clip(0, np.array([width, height, width, height], np.float32) * np.float32(scale))
        kept = batched_nms(corners, classes, self.iou_threshold, self.max_detections)
        return Detections(
            boxes=xyxy_to_xywh(corners[kept] / np.float32(scale)).astype(np.float32),
            class_ids=self._class_ids[classes[kept]],
            scores=(1 / (1 + np.exp(-top_logits[kept]))).astype(np.float32),
        )


def _open_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    damage = (
        errors.InvalidProtobuf,
        errors.InvalidGraph,
        errors.Fail,
        errors.InvalidArgument,
        errors.NoSuchFile,
    )
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except damage as error:
        raise UserError(
            f"{path}: damaged, or not an ONNX model ({str(error).splitlines()[0]}). "
            "`dvc repro` exports it again."
        ) from None


def read_metadata(path: Path, stored: dict[str, str]) -> dict[str, Any]:
    """What the exporter wrote beside the graph.

    Raises:
        UserError: The model did not come from this exporter.
    """
    metadata = {
        key.removeprefix(METADATA_PREFIX): json.loads(value)
        for key, value in stored.items()
        if key.startswith(METADATA_PREFIX)
    }
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: an ONNX model, but not one this version exported (metadata `{METADATA_PREFIX}format` "
            f"{FORMAT} is missing)"
        )
    return metadata
