"""Validate one annotation of Label Studio's: boxes, nothing, skipped, or refused with the reason."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from labeling.interface import BOXES_TAG, NO_WASTE, NO_WASTE_TAG
from labeling.params import LabelingParams
from trashnet.boxes import Box, from_percent
from trashnet.ledger import FrameRow, Outcome

MAX_NUMBER = 1e9  # percent or degrees: no page sends more
MAX_ROTATION = 0.01  # degrees: what dragging a corner may leave behind


@dataclass(frozen=True)
class ValidatedAnnotation:
    """What an annotation says: ``boxes`` in pixels, or the ``reason`` of a refusal."""

    outcome: Outcome
    boxes: tuple[Box, ...] = ()
    reason: str | None = None


class _Refused(Exception):
    """Why an annotation cannot be used, in words for its annotator."""


def validate_annotation(
    annotation: Mapping[str, Any], frame: FrameRow, names: Collection[str], params: LabelingParams
) -> ValidatedAnnotation:
    """Read an annotation of ``frame`` as Label Studio's API gives it; a fault is a refusal, no exception.

    Boxes must have one known label, be upright, not smaller than ``min_box_side``, and inside the frame but
    for ``edge_tolerance`` pixels, which are cut off. An annotation says either boxes or "no waste here".
    """
    if annotation.get("was_cancelled"):
        return ValidatedAnnotation("skipped")
    result = annotation.get("result")
    try:
        if not isinstance(result, list):
            raise _Refused("it has no result")
        nothing = sum(map(_is_no_waste, result)) > 0
        boxes = tuple(
            _box(region, frame, names, params) for region in result if _region_type(region) != "choices"
        )
    except _Refused as refused:
        return ValidatedAnnotation("refused", reason=str(refused))
    if nothing and boxes:
        return ValidatedAnnotation("refused", reason=f"it says “{NO_WASTE}” and has {len(boxes)} boxes")
    if not nothing and not boxes:
        return ValidatedAnnotation("refused", reason=f"it has neither boxes nor “{NO_WASTE}”")
    return ValidatedAnnotation("boxes", boxes) if boxes else ValidatedAnnotation("nothing")


def _region_type(region: Any) -> str:
    return str(region.get("type")) if isinstance(region, Mapping) else "unknown"


def _is_no_waste(region: Any) -> bool:
    if _region_type(region) != "choices":
        return False
    value = region.get("value")
    if (
        region.get("from_name") != NO_WASTE_TAG
        or not isinstance(value, Mapping)
        or value.get("choices") != [NO_WASTE]
    ):
        raise _Refused(f"it has a choice that the page does not offer: {value}")
    return True


def _box(region: Any, frame: FrameRow, names: Collection[str], params: LabelingParams) -> Box:
    if _region_type(region) == "rectangle":
        raise _Refused("a box has no class")
    if _region_type(region) != "rectanglelabels" or region.get("from_name") != BOXES_TAG:
        raise _Refused(
            f"it has a {_region_type(region).removesuffix('labels')}; only upright boxes are learned from"
        )
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise _Refused("a box has no position")
    label = _label(value, names)
    width, height = _frame_size(region, frame)
    percent = {name: value.get(name) for name in ("x", "y", "width", "height")}
    rotations = [value.get("rotation") or 0, region.get("image_rotation") or 0]
    if not all(_is_number(number) for number in [*percent.values(), *rotations]):
        raise _Refused(f"the box of a {label} has no position")
    if any(abs(math.remainder(angle, 360)) > MAX_ROTATION for angle in rotations):
        raise _Refused(f"the box of a {label} is rotated; only upright boxes are learned from")
    x, y, w, h = from_percent(percent, width, height)  # type: ignore[arg-type]
    tolerance = params.edge_tolerance
    if x < -tolerance or y < -tolerance or x + w > width + tolerance or y + h > height + tolerance:
        raise _Refused(f"the box of a {label} is partly outside the image")
    box = Box(label, x, y, w, h).clipped(width, height)
    if min(box.w, box.h) < params.min_box_side:
        raise _Refused(f"the box of a {label} is less than {params.min_box_side:g} pixels wide or high")
    return box


def _label(value: Mapping[str, Any], names: Collection[str]) -> str:
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or len(labels) != 1:
        raise _Refused(
            f"a box has {len(labels) if isinstance(labels, list) else 'no'} classes instead of one"
        )
    if not isinstance(labels[0], str) or labels[0] not in names:
        raise _Refused(f"{labels[0]!r} is not a class of the taxonomy")
    return labels[0]


def _frame_size(region: Mapping[str, Any], frame: FrameRow) -> tuple[int, int]:
    """The frame's width and height; the size that Label Studio's page reports must be the same."""
    if not frame.width or not frame.height:
        raise _Refused("the ledger does not know the frame's size")
    drawn_on = (region.get("original_width"), region.get("original_height"))
    if drawn_on not in ((None, None), (frame.width, frame.height)):
        raise _Refused(
            f"it was drawn on an image of {drawn_on[0]} × {drawn_on[1]} pixels; "
            f"the frame has {frame.width} × {frame.height}"
        )
    return frame.width, frame.height


def _is_number(value: Any) -> bool:
    # The comparison is false for NaN as well.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
