"""One annotation of Label Studio's, read and checked: boxes, nothing, skipped, or refused with the reason."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from labeling.interface import BOXES, NO_WASTE, NOTHING
from labeling.params import LabelingParams
from trashnet.boxes import Box, from_percent
from trashnet.ledger import FrameRow, Outcome

FAR = 1e9  # percent, degrees: no page says so much
UPRIGHT = 0.01  # degrees that a dragged corner may leave behind


@dataclass(frozen=True)
class Checked:
    """What an annotation says: ``boxes`` in pixels, or the ``reason`` of a refusal."""

    outcome: Outcome
    boxes: tuple[Box, ...] = ()
    reason: str | None = None


class _Refused(Exception):
    """Why an answer cannot be used; for the annotator's eyes."""


def check_answer(
    annotation: Mapping[str, Any], frame: FrameRow, names: Collection[str], params: LabelingParams
) -> Checked:
    """Read an annotation of ``frame``, as Label Studio's API gives it. Whatever is wrong with it is a refusal, never an exception.

    Boxes must have one known label, be upright, not smaller than ``min_box_side``, and inside the frame but
    for ``edge_tolerance`` pixels, which are cut off. An answer says either boxes or "no waste here".
    """
    if annotation.get("was_cancelled"):
        return Checked("skipped")
    result = annotation.get("result")
    try:
        if not isinstance(result, list):
            raise _Refused("it has no result")
        nothing = sum(map(_says_nothing, result)) > 0
        boxes = tuple(_box(region, frame, names, params) for region in result if _kind(region) != "choices")
    except _Refused as refused:
        return Checked("refused", reason=str(refused))
    if nothing and boxes:
        return Checked("refused", reason=f"it says “{NO_WASTE}” and has {len(boxes)} boxes")
    if not nothing and not boxes:
        return Checked("refused", reason=f"it has neither boxes nor “{NO_WASTE}”")
    return Checked("boxes", boxes) if boxes else Checked("nothing")


def _kind(region: Any) -> str:
    return str(region.get("type")) if isinstance(region, Mapping) else "unknown"


def _says_nothing(region: Any) -> bool:
    if _kind(region) != "choices":
        return False
    value = region.get("value")
    if (
        region.get("from_name") != NOTHING
        or not isinstance(value, Mapping)
        or value.get("choices") != [NO_WASTE]
    ):
        raise _Refused(f"it has a choice that the page does not offer: {value}")
    return True


def _box(region: Any, frame: FrameRow, names: Collection[str], params: LabelingParams) -> Box:
    if _kind(region) == "rectangle":
        raise _Refused("a box has no class")
    if _kind(region) != "rectanglelabels" or region.get("from_name") != BOXES:
        raise _Refused(
            f"it has a {_kind(region).removesuffix('labels')}; only upright boxes are learned from"
        )
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise _Refused("a box has no place")
    label = _label(value, names)
    width, height = _size(region, frame)
    places = {name: value.get(name) for name in ("x", "y", "width", "height")}
    turned = [value.get("rotation") or 0, region.get("image_rotation") or 0]
    if not all(_is_number(number) for number in [*places.values(), *turned]):
        raise _Refused(f"the box of a {label} has no place")
    if any(abs(math.remainder(angle, 360)) > UPRIGHT for angle in turned):
        raise _Refused(f"the box of a {label} is rotated; only upright boxes are learned from")
    x, y, w, h = from_percent(places, width, height)  # type: ignore[arg-type]
    far = params.edge_tolerance
    if x < -far or y < -far or x + w > width + far or y + h > height + far:
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


def _size(region: Mapping[str, Any], frame: FrameRow) -> tuple[int, int]:
    """The frame's size, which percentages are of; Label Studio's page says the size it saw, and that must be the same."""
    if not frame.width or not frame.height:
        raise _Refused("the ledger does not know the frame's size")
    saw = (region.get("original_width"), region.get("original_height"))
    if saw not in ((None, None), (frame.width, frame.height)):
        raise _Refused(
            f"it was drawn on an image of {saw[0]} × {saw[1]} pixels; the frame has {frame.width} × {frame.height}"
        )
    return frame.width, frame.height


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < FAR
    )  # also false for NaN
