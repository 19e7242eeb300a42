"""Append a public or in-house data set to the log: checked in full, then entered as one turn or not at all."""

import csv
import difflib
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dataset.append import append_to, open_to_append
from dataset.formats.coco import read_coco
from dataset.formats.faults import Fault, FaultKind, listing
from dataset.formats.image_validation import CheckedImage, Progress, UnfitImage, check_images, fault_of
from dataset.formats.params import ImportParams
from dataset.formats.sources import Kind, Picture, Source, Thing
from dataset.formats.voc import read_voc
from dataset.formats.yolo import read_yolo
from dataset.log import SPLITS, Frame, Labels
from dataset.splits.assignment import assign_groups_and_splits
from dataset.splits.groups import GROUP_KEY, Origin
from dataset.splits.params import SplitParams
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

READERS = {"coco": read_coco, "voc": read_voc, "yolo": read_yolo}
OVERHANG = 1.0  # pixels by which a box may reach outside its image: rounding, which is clipped
NOTEWORTHY = 1e-6  # pixels: a clip by less is the arithmetic's own rounding, and not reported


@dataclass(slots=True)
class ImportReport:
    """What an import did. ``turn`` is ``None`` where the log already said all of it."""

    turn: str | None = None
    frames: int = 0  # new in the log
    known: int = 0  # frames that the log had already
    boxes: int = 0  # on all frames of the source
    backgrounds: int = 0  # frames of the source without a box
    relabelled: int = 0  # known frames whose labels the source corrects
    twice: int = 0  # images of the source that are byte for byte another one of it
    clipped: int = 0  # boxes that reached outside by a pixel or less
    splits: dict[str, int] = field(default_factory=dict)  # of the new frames
    converted: dict[str, int] = field(
        default_factory=dict
    )  # images that could not keep their bytes, by what was done
    dropped: dict[str, int] = field(
        default_factory=dict
    )  # boxes of categories that the mapping maps to nothing
    unused: list[str] = field(default_factory=list)  # names in the mapping that the source does not have
    left_out: list[Fault] = field(
        default_factory=list
    )  # with skip_invalid: what was wrong and is not in the log

    def summary(self) -> str:
        """The report in plain words."""
        lines = [
            f"turn {self.turn}: {self.frames:,} new frames, {self.relabelled:,} relabelled"
            if self.turn
            else "nothing new: the log says all of this already",
            f"  source: {self.frames + self.known:,} frames, {self.boxes:,} boxes, {self.backgrounds:,} frames without a box",
        ]
        if self.frames:
            lines.append(
                "  new frames: " + ", ".join(f"{self.splits.get(split, 0):,} {split}" for split in SPLITS)
            )
        if self.known:
            lines.append(f"  in the log before: {self.known:,} frames")
        if self.twice:
            lines.append(f"  the same bytes under another name: {self.twice:,} images, entered once")
        if self.clipped:
            lines.append(
                f"  clipped: {self.clipped:,} boxes that reached outside their image by a pixel or less"
            )
        lines += [f"  {what}: {count:,} images" for what, count in sorted(self.converted.items())]
        lines += [
            f"  left out as the mapping says: {count:,} boxes of {name!r}"
            for name, count in sorted(self.dropped.items())
        ]
        if self.unused:
            lines.append(f"  in the mapping, but not in the source: {', '.join(map(repr, self.unused))}")
        if self.left_out:
            lines.append("LEFT OUT, because something was wrong:")
            lines.append(listing(self.left_out))
        return "\n".join(lines)


def import_dataset(
    source: Path,
    kind: Kind,
    log_root: Path,
    taxonomy: Taxonomy,
    params: ImportParams,
    split: SplitParams,
    *,
    mapping: Mapping[str, str | None] | None = None,
    name: str | None = None,
    skip_invalid: bool = False,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Append a data set to the log as one turn; importing the same thing twice changes nothing.

    Categories become classes by name: through ``mapping`` (their name to ours, ``None`` to leave their boxes
    out), then exactly, then without regard to case. Every image is decoded in full; what is stored is a JPEG
    (:func:`dataset.formats.image_validation.normalise`). Boxes that reach outside by a pixel or less are
    clipped. A frame in the log already takes the labels given here, as a correction.

    A ``split`` its source gives a frame is heeded where its group is new and all of it agrees, from YOLO and
    VOC only if train, val and test all occur; otherwise :func:`dataset.splits.assignment.assign_splits`
    decides.

    Raises :class:`UserError` with the whole list of what is wrong, and leaves the log as it was. With
    ``skip_invalid`` images that are faulty, and annotations that are on good images, are left out and listed
    in the report.
    """
    if kind not in READERS:
        raise UserError(f"format {kind!r} is none of {', '.join(READERS)}")
    found = READERS[kind](source)
    report = ImportReport()
    class_of = _classes(found, mapping or {}, taxonomy, report)
    with tempfile.TemporaryDirectory(prefix="trashnet-import-") as spool:
        checked = check_images(
            [(picture.path, picture.declared) for picture in found.pictures],
            min_side=params.min_side,
            max_pixels=params.max_pixels,
            spool=Path(spool),
            on_progress=on_progress,
        )
        entries = _entries(found, checked, class_of, report)
        if found.faults and not skip_invalid:
            raise UserError(
                f"{source}: not imported, {len(found.faults)} things are wrong with it:\n{listing(found.faults)}\n"
                "Mend them, or leave them out with --skip-invalid. The log is as it was."
            )
        report.left_out = found.faults
        if not entries:
            raise UserError(
                f"{source}: nothing to import"
                + (f":\n{listing(found.faults)}" if found.faults else ": it has no images")
            )
        _enter(entries, name or _turn_name(source), log_root, taxonomy, split, report)
    return report


@dataclass(slots=True)
class _Entry:
    picture: Picture
    image: CheckedImage
    labels: Labels


def _classes(
    found: Source, mapping: Mapping[str, str | None], taxonomy: Taxonomy, report: ImportReport
) -> dict[str, int | None]:
    """Class id by the source's category name, ``None`` for one to leave out; a name that is missing here is unknown."""
    ours = {name.casefold(): i for name, i in reversed(taxonomy.id_of.items())} | taxonomy.id_of
    if wrong := sorted(
        {
            name
            for name in mapping.values()
            if name is not None and name not in ours and name.casefold() not in ours
        }
    ):
        raise UserError(
            f"the mapping names classes that the taxonomy does not have: {', '.join(map(repr, wrong))}"
        )
    folded = {name.casefold().strip(): target for name, target in mapping.items()}
    used: set[str] = set()
    class_of: dict[str, int | None] = {}
    for category in found.categories:
        target: str | None = category.strip()
        if category in mapping or category.casefold().strip() in folded:
            target = mapping[category] if category in mapping else folded[category.casefold().strip()]
            used.add(category.casefold().strip())
        if target is None:
            class_of[category] = None
        elif target in ours or target.casefold() in ours:
            class_of[category] = ours[target] if target in ours else ours[target.casefold()]
    report.unused = sorted(name for name in mapping if name.casefold().strip() not in used)
    return class_of


def _entries(
    found: Source,
    checked: list[CheckedImage | UnfitImage],
    class_of: Mapping[str, int | None],
    report: ImportReport,
) -> dict[str, _Entry]:
    """What may enter the log, by SHA-256; adds to the source's faults all that may not."""
    entries: dict[str, _Entry] = {}
    converted: Counter[str] = Counter()
    unknown: dict[str, list[str]] = {}
    for picture, image in zip(found.pictures, checked, strict=True):
        if isinstance(image, UnfitImage):
            found.faults.append(fault_of(image, picture.file_name))
            continue
        kept = [
            thing
            for thing in picture.things
            if _is_fit(thing, picture, image, class_of, unknown, found, report)
        ]
        entry = _Entry(picture, image, _labels(kept, picture, image, class_of, report))
        if (before := entries.get(image.sha256)) is not None:
            report.twice += 1
            if not before.labels.same_boxes(entry.labels) or before.picture.split != picture.split:
                what = f"is byte for byte {before.picture.file_name}, but its boxes or its split differ"
                found.fault(FaultKind.CONTRADICTION, picture.file_name, what)
            continue
        entries[image.sha256] = entry
        if image.converted:
            converted[image.converted] += 1
    for category, places in sorted(unknown.items()):
        near = difflib.get_close_matches(category, [c for c in class_of if class_of[c]], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        found.fault(
            FaultKind.UNKNOWN_CATEGORY, repr(category), f"{len(places)} boxes, the first at {places[0]}{hint}"
        )
    report.converted = dict(converted)
    return entries


def _is_fit(
    thing: Thing,
    picture: Picture,
    image: CheckedImage,
    class_of: Mapping[str, int | None],
    unknown: dict[str, list[str]],
    found: Source,
    report: ImportReport,
) -> bool:
    if thing.category not in class_of:
        unknown.setdefault(thing.category, []).append(thing.where)
        return False
    if class_of[thing.category] is None:
        report.dropped[thing.category] = report.dropped.get(thing.category, 0) + 1
        return False
    x, y, w, h = box = _pixels(thing, picture, image)
    shown = f"{thing.category} {list(thing.box)}"
    if not np.isfinite([*box, x + w, y + h]).all():
        found.fault(FaultKind.NOT_A_NUMBER, thing.where, shown)
    elif w <= 0 or h <= 0:
        found.fault(FaultKind.NO_AREA, thing.where, shown)
    elif min(x, y) < -OVERHANG or x + w > image.width + OVERHANG or y + h > image.height + OVERHANG:
        found.fault(FaultKind.OUTSIDE, thing.where, f"{shown} on {image.width} x {image.height}")
    elif min(_clipped(box, image)[2:]) <= 0:
        found.fault(
            FaultKind.NO_AREA, thing.where, f"{shown}: nothing of it is inside {image.width} x {image.height}"
        )
    else:
        return True
    return False


def _pixels(thing: Thing, picture: Picture, image: CheckedImage) -> tuple[float, float, float, float]:
    x, y, w, h = thing.box
    return (
        (x * image.width, y * image.height, w * image.width, h * image.height)
        if picture.relative
        else (x, y, w, h)
    )


def _clipped(
    box: tuple[float, float, float, float], image: CheckedImage
) -> tuple[float, float, float, float]:
    """The part inside the image; a box that is inside keeps every bit."""
    x, y, w, h = box
    if x < 0:
        x, w = 0.0, x + w
    if y < 0:
        y, h = 0.0, y + h
    return (
        x,
        y,
        min(w, image.width - x) if x + w > image.width else w,
        min(h, image.height - y) if y + h > image.height else h,
    )


def _labels(
    things: list[Thing],
    picture: Picture,
    image: CheckedImage,
    class_of: Mapping[str, int | None],
    report: ImportReport,
) -> Labels:
    boxes = np.zeros((len(things), 4))
    extras: list[dict[str, Any]] = []
    for place, thing in enumerate(things):
        box = _pixels(thing, picture, image)
        boxes[place] = _clipped(box, image)
        report.clipped += bool(np.abs(boxes[place] - box).max() > NOTEWORTHY)
        extra = dict(thing.extra)
        if picture.relative and "segmentation" in extra:
            size = (image.width, image.height)
            extra["segmentation"] = [
                [v * size[i % 2] for i, v in enumerate(polygon)] for polygon in extra["segmentation"]
            ]
        extras.append(extra)
    return Labels(
        boxes=boxes,
        class_ids=np.array([class_of[thing.category] for thing in things], np.int64),
        crowd=np.array([thing.crowd for thing in things], bool),
        extra=tuple(extras),
        labelled_at=picture.labelled_at,
        annotator=picture.annotator,
    )


def _enter(
    entries: dict[str, _Entry],
    name: str,
    log_root: Path,
    taxonomy: Taxonomy,
    split: SplitParams,
    report: ImportReport,
) -> None:
    with open_to_append(log_root, taxonomy) as log:
        new = [entry for sha, entry in entries.items() if sha not in log.row_of]
        known = [entry for sha, entry in entries.items() if sha in log.row_of]
        report.frames, report.known = len(new), len(known)
        report.boxes = sum(len(entry.labels) for entry in entries.values())
        report.backgrounds = sum(not len(entry.labels) for entry in entries.values())
        for entry in known:
            before = log.labels(log.row_of[entry.image.sha256])
            report.relabelled += before is None or not before.same_boxes(entry.labels)
        boxes = np.zeros((len(new), len(taxonomy.classes)), np.int64)
        for place, entry in enumerate(new):
            np.add.at(boxes[place], entry.labels.class_ids[~entry.labels.crowd] - 1, 1)
        origins = [
            Origin(e.image.sha256, e.image.phash, e.picture.bin_id, e.picture.burst, e.picture.group)
            for e in new
        ]
        groups, splits = assign_groups_and_splits(
            log,
            origins,
            boxes,
            split,
            wanted=[entry.picture.split for entry in new],
        )
        frames = (_frame(entry, group, to) for entry, group, to in zip(new, groups, splits, strict=True))
        report.splits = dict(Counter(splits))
        report.turn = append_to(log, name, frames, ((sha, entry.labels) for sha, entry in entries.items()))


def _frame(entry: _Entry, group: str, split: Any) -> Frame:
    picture, image = entry.picture, entry.image
    jpeg = image.file.read_bytes()
    extra = dict(picture.extra)
    if picture.group is not None and picture.group != group:
        extra[GROUP_KEY] = picture.group  # so that later frames of that group find the one it went into
    return Frame(
        sha256=image.sha256,
        jpeg=jpeg,
        width=image.width,
        height=image.height,
        split=split,
        group=group,
        phash=image.phash,
        file_name=picture.file_name,
        bin_id=picture.bin_id,
        burst=picture.burst,
        captured_at=picture.captured_at,
        extra=extra,
    )


def _turn_name(source: Path) -> str:
    name = source.resolve().stem if source.is_file() else source.resolve().name
    return re.sub(r"[^a-z0-9_.]+", "_", name.lower()).strip("_.") or "import"


def load_mapping(path: Path) -> dict[str, str | None]:
    """Read which of our classes each of their category names means, or none: a YAML or JSON object, or a CSV of two columns.

    In CSV an empty second column means none, and a first row ``theirs,ours`` is a heading. Raises
    :class:`UserError`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the mapping cannot be read: {error}") from None
    if path.suffix.lower() == ".csv":
        return dict(_csv_pairs(text, path))
    try:
        document = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: the mapping does not parse: {error}") from None
    if not isinstance(document, dict) or not all(
        value is None or isinstance(value, str) for value in document.values()
    ):
        raise UserError(
            f"{path}: a mapping says `their name: our name` per line, or `their name: null` to leave a category out"
        )
    return {str(theirs).strip(): ours for theirs, ours in document.items()}


def _csv_pairs(text: str, path: Path) -> Iterator[tuple[str, str | None]]:
    for place, row in enumerate(csv.reader(io.StringIO(text))):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (place == 0 and cells == ["theirs", "ours"]):
            continue
        if len(cells) != 2 or not cells[0]:
            raise UserError(
                f"{path}: line {place + 1}: a mapping has two columns, their name and ours (empty to leave it out)"
            )
        yield cells[0], cells[1] or None
