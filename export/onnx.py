"""The teacher as one ONNX file: weights, raw heads, and in the metadata all that is needed to use them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trashnet.detectors._onnx import FORMAT, METADATA_PREFIX
from trashnet.errors import UserError
from trashnet.files import atomic_write

MAX_DIFFERENCE = 1e-3  # between the heads of PyTorch and of onnxruntime; more is not rounding
OPSET = 20
METADATA_KEYS = ("classes", "image_size", "mean", "std", "letterbox", "anchors", "architecture")


@dataclass(frozen=True, slots=True)
class OnnxReport:
    """The exported file, and the largest differences between PyTorch and onnxruntime on two images."""

    path: Path
    size: int
    opset: int
    logits_difference: float
    codes_difference: float
    image_size: int
    classes: int

    def summary(self) -> str:
        """The export in a line, for a person."""
        return (
            f"{self.path}: {self.size / 1e6:.1f} MB, opset {self.opset}, {self.classes} classes, "
            f"{self.image_size} px; onnxruntime differs from PyTorch by at most {self.logits_difference:.1g} "
            f"(class logits) and {self.codes_difference:.1g} (box codes)"
        )


def export_onnx(trained: Path, out: Path) -> OnnxReport:
    """Export the trained teacher to one self-contained file, after comparing it with PyTorch.

    Input ``images``: uint8 RGB ``(batch, S, S, 3)``, letterboxed; mean and deviation are applied inside.
    Outputs ``class_logits`` ``(batch, A, C)`` and ``box_codes`` ``(batch, A, 4)``, (ty, tx, th, tw). Class
    names, sizes, anchors and letterbox are JSON under ``trashnet.*`` in the metadata of the model.

    Raises:
        UserError: Training has not finished, or onnxruntime's heads differ from PyTorch's by more than 0.001;
            then nothing is written.
    """
    import onnx
    import torch

    from training.efficientdet import load_trained

    model, description = load_trained(trained)
    images = make_test_images(description["image_size"])
    program = torch.onnx.export(
        model,
        (torch.from_numpy(images),),
        input_names=["images"],
        output_names=["class_logits", "box_codes"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = _strip_debug_info(program.model_proto)
    metadata = {key: description[key] for key in METADATA_KEYS} | {
        "format": FORMAT,
        "backbone": description["report"]["backbone"],
    }
    properties = {METADATA_PREFIX + key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto)
    with torch.no_grad():
        expected = [head.numpy() for head in model(torch.from_numpy(images))]
    with atomic_write(out) as temporary:
        onnx.save(proto, temporary)
        differences = compare_heads(temporary, images, expected)
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    image_size, num_classes = description["image_size"], len(description["classes"])
    return OnnxReport(out, out.stat().st_size, opset, *differences, image_size, num_classes)


def _strip_debug_info(proto: Any) -> Any:
    """Drop the notes on the source line of each node.

    They are 10 % of the file and hold paths of the machine that exported it.
    """
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return proto


def compare_heads(
    path: Path, images: NDArray[np.uint8], expected: list[NDArray[np.float32]]
) -> tuple[float, float]:
    """Compare an exported file in onnxruntime with PyTorch.

    Args:
        path: The file.
        images: uint8 ``(B, S, S, 3)``.
        expected: PyTorch's class logits ``(B, A, C)`` and box codes ``(B, A, 4)`` of these images.

    Returns:
        The largest differences of the logits and of the codes.

    Raises:
        UserError: One of them is above :data:`MAX_DIFFERENCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    heads = session.run(["class_logits", "box_codes"], {"images": images})
    logits, codes = (float(np.abs(a - b).max()) for a, b in zip(heads, expected, strict=True))
    if not max(logits, codes) <= MAX_DIFFERENCE:  # written so that NaN is refused too
        raise UserError(
            f"{path.name}: onnxruntime and PyTorch disagree by {max(logits, codes):.2g} (at most "
            f"{MAX_DIFFERENCE} is rounding). Another version of torch or onnxruntime is at work: "
            "`uv sync` restores the locked ones."
        )
    return logits, codes


def make_test_images(size: int) -> NDArray[np.uint8]:
    """Two images with areas, edges and noise like photos, uint8 ``(2, size, size, 3)``; always the same."""
    import cv2

    rng = np.random.default_rng(0)
    areas = cv2.resize(rng.integers(0, 256, (6, 6, 6), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    images = np.stack([areas[..., :3], areas[..., 3:]])
    for image in images:
        for _ in range(8):
            (x, y), (w, h) = rng.integers(0, size, 2), rng.integers(size // 16, size // 3, 2)
            image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    noisy: Any = images + rng.normal(0, 6, images.shape)
    return noisy.clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]
