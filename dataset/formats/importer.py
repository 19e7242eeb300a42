"""Import of a public or in-house data set into the log: validated in full, then appended as one turn."""

import difflib
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.append import append_to, open_to_append
from dataset.formats.coco import read_coco
from dataset.formats.faults import Fault, FaultKind, listing
from dataset.formats.image_validation import InvalidImage, Progress, ValidImage, image_fault, validate_images
from dataset.formats.import_report import ImportReport
from dataset.formats.mapping import map_categories
from dataset.formats.params import ImportParams
from dataset.formats.sources import Kind, SourceAnnotation, SourceDataset, SourceImage
from dataset.formats.voc import read_voc
from dataset.formats.yolo import read_yolo
from dataset.frame import Frame, Labels, Split
from dataset.splits.assignment import assign_groups_and_splits
from dataset.splits.groups import GROUP_KEY, Origin
from dataset.splits.params import SplitParams
from trashnet.choice import IMPORT
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

READERS = {"coco": read_coco, "voc": read_voc, "yolo": read_yolo}
MAX_OVERHANG = 1.0  # pixels by which rounding may put a box outside its image; it is clipped
MIN_REPORTED_CLIP = 1e-6  # pixels; less is the rounding error of the arithmetic


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
    """Append a data set to the log as one turn; importing it a second time changes nothing.

    Every image is decoded in full, and a JPEG is stored (:func:`dataset.formats.image_validation.normalise`).
    Boxes that reach outside by a pixel or less are clipped. If the log holds a frame already, the labels
    given here correct it. A split that the data set gives a frame counts only if the frame's group is new and
    agrees on it (in YOLO and VOC, only if train, val and test all occur); otherwise
    :func:`dataset.splits.assignment.assign_splits` decides.

    Args:
        source: The data set's file or folder.
        kind: The format of the data set.
        log_root: Folder of the log.
        taxonomy: The classes.
        params: Which images are accepted.
        split: How frames are grouped and split.
        mapping: The class's name by category name, ``None`` for a category to leave out. A category that is
            not mapped becomes the class of the same name, compared exactly and then without case.
        name: What the turn is called; by default as the file or folder.
        skip_invalid: Leave out faulty images and annotations, and list them in the report.
        on_progress: Called with the number of images validated and in all; besides the bar of a terminal.

    Returns:
        What was imported and what was left out.

    Raises:
        UserError: With the list of all faults. The log is unchanged.
    """
    if kind not in READERS:
        raise UserError(f"format {kind!r} is none of {', '.join(READERS)}")
    dataset = READERS[kind](source)
    class_of, unused = map_categories(dataset.categories, mapping or {}, taxonomy)
    report = ImportReport(unused=unused)
    with tempfile.TemporaryDirectory(prefix="trashnet-import-") as spool:
        validated = validate_images(
            [(image.path, image.declared_size) for image in dataset.images],
            min_side=params.min_side,
            max_pixels=params.max_pixels,
            spool=Path(spool),
            on_progress=on_progress,
        )
        entries = _Validation(dataset, class_of, report).entries(validated)
        report.left_out = dataset.faults
        _check_importable(source, entries, dataset.faults, skip_invalid)
        _append(entries, name or _turn_name(source), log_root, taxonomy, split, report)
    return report


@dataclass(slots=True)
class _Entry:
    """An image that enters the log: as the data set has it, as it will be stored, and its labels."""

    source: SourceImage
    stored: ValidImage
    labels: Labels


@dataclass
class _Validation:
    """Makes entries of a data set's images; collects faults in the data set, counts in the report."""

    dataset: SourceDataset
    class_of: Mapping[str, int | None]
    report: ImportReport
    unknown: dict[str, list[str]] = field(default_factory=dict)  # where each unknown category occurs

    def entries(self, validated: list[ValidImage | InvalidImage]) -> dict[str, _Entry]:
        """Return the entries by SHA-256, given the validated images in the data set's order."""
        entries: dict[str, _Entry] = {}
        converted: Counter[str] = Counter()
        for source, stored in zip(self.dataset.images, validated, strict=True):
            if isinstance(stored, InvalidImage):
                self.dataset.faults.append(image_fault(stored, source.file_name))
                continue
            entry = _Entry(source, stored, self._labels(source, stored))
            if (first := entries.get(stored.sha256)) is not None:
                self.report.repeated += 1
                if not first.labels.same_boxes(entry.labels) or first.source.split != source.split:
                    what = f"is byte for byte {first.source.file_name}, but its boxes or its split differ"
                    self.dataset.add_fault(FaultKind.CONTRADICTION, source.file_name, what)
                continue
            entries[stored.sha256] = entry
            if stored.converted:
                converted[stored.converted] += 1
        self._add_unknown_categories()
        self.report.converted = dict(converted)
        return entries

    def _add_unknown_categories(self) -> None:
        for category, occurrences in sorted(self.unknown.items()):
            similar = difflib.get_close_matches(category, [c for c in self.class_of if self.class_of[c]], 1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            what = f"{len(occurrences)} boxes, the first at {occurrences[0]}{hint}"
            self.dataset.add_fault(FaultKind.UNKNOWN_CATEGORY, repr(category), what)

    def _labels(self, source: SourceImage, stored: ValidImage) -> Labels:
        annotations = [a for a in source.annotations if self._is_valid(a, source, stored)]
        boxes = np.zeros((len(annotations), 4))
        extras: list[dict[str, Any]] = []
        for index, annotation in enumerate(annotations):
            box = _pixel_box(annotation, source, stored)
            boxes[index] = _clip(box, stored)
            self.report.clipped += bool(np.abs(boxes[index] - box).max() > MIN_REPORTED_CLIP)
            extra = dict(annotation.extra)
            if source.relative and "segmentation" in extra:
                size = (stored.width, stored.height)
                extra["segmentation"] = [
                    [v * size[i % 2] for i, v in enumerate(polygon)] for polygon in extra["segmentation"]
                ]
            extras.append(extra)
        return Labels(
            boxes=boxes,
            class_ids=np.array([self.class_of[a.category] for a in annotations], np.int64),
            crowd=np.array([a.crowd for a in annotations], bool),
            extra=tuple(extras),
            labelled_at=source.labelled_at,
            annotator=source.annotator,
        )

    def _is_valid(self, annotation: SourceAnnotation, source: SourceImage, stored: ValidImage) -> bool:
        category, where = annotation.category, annotation.where
        if category not in self.class_of:
            self.unknown.setdefault(category, []).append(where)
            return False
        if self.class_of[category] is None:
            self.report.dropped[category] = self.report.dropped.get(category, 0) + 1
            return False
        x, y, w, h = box = _pixel_box(annotation, source, stored)
        what, size = f"{category} {list(annotation.box)}", f"{stored.width} x {stored.height}"
        right, bottom = stored.width + MAX_OVERHANG, stored.height + MAX_OVERHANG
        if not np.isfinite([*box, x + w, y + h]).all():
            self.dataset.add_fault(FaultKind.NOT_A_NUMBER, where, what)
        elif w <= 0 or h <= 0:
            self.dataset.add_fault(FaultKind.NO_AREA, where, what)
        elif min(x, y) < -MAX_OVERHANG or x + w > right or y + h > bottom:
            self.dataset.add_fault(FaultKind.OUTSIDE, where, f"{what} on {size}")
        elif min(_clip(box, stored)[2:]) <= 0:
            self.dataset.add_fault(FaultKind.NO_AREA, where, f"{what}: nothing of it is inside {size}")
        else:
            return True
        return False


def _check_importable(
    source: Path, entries: Mapping[str, _Entry], faults: list[Fault], skip_invalid: bool
) -> None:
    if faults and not skip_invalid:
        raise UserError(
            f"{source}: not imported, it has {len(faults)} faults:\n{listing(faults)}\n"
            "Fix them, or leave them out with --skip-invalid. The log is unchanged."
        )
    if not entries:
        reason = f"\n{listing(faults)}" if faults else " it has no images"
        raise UserError(f"{source}: nothing to import:{reason}")


def _pixel_box(
    annotation: SourceAnnotation, source: SourceImage, stored: ValidImage
) -> tuple[float, float, float, float]:
    x, y, w, h = annotation.box
    if source.relative:
        return x * stored.width, y * stored.height, w * stored.width, h * stored.height
    return x, y, w, h


def _clip(box: tuple[float, float, float, float], image: ValidImage) -> tuple[float, float, float, float]:
    """Clip a box to the image; a box that lies inside keeps every bit."""
    x, y, w, h = box
    if x < 0:
        x, w = 0.0, x + w
    if y < 0:
        y, h = 0.0, y + h
    w = min(w, image.width - x) if x + w > image.width else w
    h = min(h, image.height - y) if y + h > image.height else h
    return x, y, w, h


def _append(
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
            recorded = log.labels(log.row_of[entry.stored.sha256])
            report.relabelled += recorded is None or not recorded.same_boxes(entry.labels)
        boxes = np.zeros((len(new), len(taxonomy.classes)), np.int64)
        for index, entry in enumerate(new):
            np.add.at(boxes[index], entry.labels.class_ids[~entry.labels.crowd] - 1, 1)
        origins = [
            Origin(e.stored.sha256, e.stored.phash, e.source.bin_id, e.source.burst, e.source.group)
            for e in new
        ]
        wanted = [entry.source.split for entry in new]
        groups, splits = assign_groups_and_splits(log, origins, boxes, split, wanted=wanted)
        frames = (_frame(*parts) for parts in zip(new, groups, splits, strict=True))
        report.splits = dict(Counter(splits))
        report.turn = append_to(log, name, frames, ((sha, entry.labels) for sha, entry in entries.items()))


def _frame(entry: _Entry, group: str, split: Split) -> Frame:
    source, stored = entry.source, entry.stored
    jpeg = stored.file.read_bytes()
    extra = dict(source.extra)
    if source.group is not None and source.group != group:
        extra[GROUP_KEY] = source.group  # leads later frames of that group to the one joined
    return Frame(
        sha256=stored.sha256,
        jpeg=jpeg,
        width=stored.width,
        height=stored.height,
        split=split,
        group=group,
        phash=stored.phash,
        file_name=source.file_name,
        bin_id=source.bin_id,
        burst=source.burst,
        captured_at=source.captured_at,
        extra=extra,
        upload_reason=IMPORT,
    )


def _turn_name(source: Path) -> str:
    name = source.resolve().stem if source.is_file() else source.resolve().name
    return re.sub(r"[^a-z0-9_.]+", "_", name.lower()).strip("_.") or "import"
