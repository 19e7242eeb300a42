"""The teacher as exported: one ``.onnx`` file with raw heads, and all that is needed to use it in its metadata."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashnet.detectors._anchors import best_candidates, decode, make_anchors, suppress
from trashnet.detectors._types import Detections
from trashnet.errors import UserError
from trashnet.letterbox import letterbox
from trashnet.taxonomy import Taxonomy

METADATA_PREFIX = "trashnet."
FORMAT = 1  # raised when the meaning of the metadata or of the inputs and outputs changes
CANDIDATES = 5000  # of all anchors and classes, as in EfficientDet's own post-processing
IMAGES_AT_ONCE = 8


class OnnxDetector:
    """EfficientDet in onnxruntime: letterbox, raw heads, decoding and per-class non-maximum suppression in numpy.

    Threads: all cores, or as many as the environment variable ``OMP_NUM_THREADS`` says.
    """

    def __init__(
        self,
        path: Path,
        taxonomy: Taxonomy,
        *,
        min_score: float = 0.001,
        nms_iou: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        """Open the file. Raises :class:`UserError` if it is damaged, is no model of ours, or knows a class that the taxonomy does not."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
        faults = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except (
            faults.InvalidProtobuf,
            faults.InvalidGraph,
            faults.Fail,
            faults.InvalidArgument,
            faults.NoSuchFile,
        ) as error:
            raise UserError(
                f"{path}: damaged, or not an ONNX model ({str(error).splitlines()[0]}). `dvc repro` exports it again."
            ) from None
        meta = read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        if unknown := [name for name in meta["classes"] if name not in taxonomy.id_of]:
            raise UserError(
                f"{path}: knows {', '.join(unknown)}, which the taxonomy does not. "
                "Train and export it anew, or give the classes their names back."
            )
        self.name = path.stem
        self.image_size = int(meta["image_size"])
        self.min_score, self.nms_iou, self.max_detections = min_score, nms_iou, max_detections
        self._ids = np.array([taxonomy.id_of[name] for name in meta["classes"]], np.int64)
        self._fill = tuple(meta["letterbox"]["fill"])
        self._anchors = make_anchors(self.image_size, **meta["anchors"])

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """As :meth:`Detector.detect` says; at most ``max_detections`` per image, none below ``min_score``."""
        found: list[Detections] = []
        for first in range(0, len(images), IMAGES_AT_ONCE):
            some = images[first : first + IMAGES_AT_ONCE]
            fitted = [letterbox(image, self.image_size, self._fill) for image in some]
            logits, codes = self._session.run(
                ["class_logits", "box_codes"], {"images": np.stack([one for one, _ in fitted])}
            )
            for image, (_, scale), rows, code in zip(some, fitted, logits, codes, strict=True):
                found.append(self._detections(rows, code, image.shape[1], image.shape[0], scale))
        return found

    def _detections(
        self, logits: NDArray[np.float32], codes: NDArray[np.float32], width: int, height: int, scale: float
    ) -> Detections:
        least = np.log(self.min_score / (1 - self.min_score)) if self.min_score > 0 else -np.inf
        anchor, label, best = best_candidates(logits, CANDIDATES, float(least))
        boxes = decode(codes[anchor], self._anchors[anchor])
        boxes = boxes.clip(0, np.array([width, height, width, height], np.float32) * np.float32(scale))
        kept = suppress(boxes, label, self.max_detections, self.nms_iou)
        corners = boxes[kept] / np.float32(scale)
        return Detections(
            boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(
                np.float32
            ),
            class_ids=self._ids[label[kept]],
            scores=(1 / (1 + np.exp(-best[kept]))).astype(np.float32),
        )


def read_metadata(path: Path, stored: dict[str, str]) -> dict[str, Any]:
    """What the exporter wrote beside the graph. Raises :class:`UserError` for a model that did not come from it."""
    meta = {
        key.removeprefix(METADATA_PREFIX): json.loads(value)
        for key, value in stored.items()
        if key.startswith(METADATA_PREFIX)
    }
    if meta.get("format") != FORMAT:
        raise UserError(
            f"{path}: an ONNX model, but not one this version exported (metadata `{METADATA_PREFIX}format` {FORMAT} is missing)"
        )
    return meta
