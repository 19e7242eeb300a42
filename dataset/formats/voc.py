"""PASCAL VOC (2012 devkit): ``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/Main/{train,val,test}.txt``.

Coordinates are the devkit's: the first pixel is 1 and ``xmax, ymax`` name the last pixel inside, so ``x =
xmin - 1`` and ``w = xmax - xmin + 1``. Boxes of tools that count from 0 are therefore read at most one pixel
too far left and up, which is within the pixel that an import clips. Arithmetic on coordinates is decimal, so
that fractions survive export and import exactly.
"""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any

from dataset.formats.faults import FaultKind
from dataset.formats.sources import (
    IMAGE_SUFFIXES,
    SourceAnnotation,
    SourceDataset,
    SourceImage,
    drop_incomplete_splits,
)
from dataset.frame import SPLITS, Frame
from trashnet.errors import UserError
from trashnet.files import write_text
from trashnet.taxonomy import Taxonomy

FLAGS = ("truncated", "difficult", "occluded")
CROWD_TAG, EXTRA_TAG = "iscrowd", "extra"  # elements of this project's own, which VOC's readers ignore
XML_KEY = "voc_xml"  # key in ``extra`` of the elements that are kept as XML text
DECIMAL_DIGITS = 800  # enough for the sum of the largest and the smallest float64, written in full
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path) -> SourceDataset:
    """Read a VOC data set.

    Every XML file describes one image; one without objects is a background. Unknown elements are kept in
    ``extra``. VOC has no bins, bursts, groups and times. Splits count only if ImageSets lists train, val and
    test.

    Args:
        source: A VOC folder, or one that has XML files beside their images (labelImg, Roboflow).

    Returns:
        The data set, with all faults found.

    Raises:
        UserError: If there is no XML file.
    """
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; a VOC data set is one with Annotations/ and JPEGImages/")
    annotations = source / "Annotations" if (source / "Annotations").is_dir() else source
    paths = sorted(annotations.rglob("*.xml"))
    if not paths:
        raise UserError(
            f"{source}: no *.xml under {annotations}; a VOC data set has one per image in Annotations/"
        )
    dataset = SourceDataset()
    splits = _image_sets(source)
    for path in paths:
        identity = path.relative_to(annotations).with_suffix("").as_posix()
        try:
            # ElementTree fetches nothing from outside, and expat (2.4 on) bounds what entities may grow to.
            root = ET.parse(path).getroot()
        except (ET.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
            dataset.add_fault(
                FaultKind.BROKEN_ANNOTATIONS, str(path.relative_to(source)), f"not XML_KEY: {error}"
            )
            continue
        image = _read_image(root, path, identity, source, dataset)
        listed = splits.get(identity, set())
        image.split = listed.pop() if len(listed) == 1 else None  # type: ignore[assignment]
        dataset.images.append(image)
    _add_unannotated(source, dataset)
    drop_incomplete_splits(dataset.images)
    return dataset


def _image_sets(source: Path) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for split in SPLITS:
        path = source / "ImageSets" / "Main" / f"{split}.txt"
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip():
                    splits.setdefault(line.strip(), set()).add(split)
    return splits


def _add_unannotated(source: Path, dataset: SourceDataset) -> None:
    images = source / "JPEGImages"
    if images.is_dir():
        known = {image.path for image in dataset.images}
        for path in sorted(images.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path not in known:
                dataset.add_fault(
                    FaultKind.MISSING_FILE,
                    str(path.relative_to(source)),
                    "has no XML file; a background needs one without objects",
                )


def _read_image(
    root: ET.Element, path: Path, identity: str, source: Path, dataset: SourceDataset
) -> SourceImage:
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        name = Path(name).name
    where = str(path.relative_to(source))
    file = _image_file(name, path, identity, source)
    image = SourceImage(file, name or file.name)
    size = [_whole_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    if size[0] and size[1]:  # tools that did not look at the image write 0
        image.declared_size = (size[0], size[1])
    for index, element in enumerate(root.findall("object")):
        if annotation := _read_annotation(element, f"{where}: object {index + 1}", dataset):
            image.annotations.append(annotation)
            dataset.categories.add(annotation.category)
    image.extra = _read_extra(root, ("filename", "size", "object"), f"{where}: <annotation>", dataset)
    return image


def _image_file(name: str, path: Path, identity: str, source: Path) -> Path:
    folders = [source / "JPEGImages", path.parent, source / "images", source]
    candidates = [folder / name for folder in folders if name]
    candidates += [
        folder / f"{identity}{suffix}" for folder in folders for suffix in (".jpg", ".jpeg", ".png", ".JPG")
    ]
    candidates += [path.with_suffix(suffix) for suffix in (".jpg", ".jpeg", ".png", ".JPG")]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _read_annotation(element: ET.Element, where: str, dataset: SourceDataset) -> SourceAnnotation | None:
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    if not name or box is None:
        dataset.add_fault(FaultKind.MALFORMED, where, "lacks a <name> or a <bndbox>")
        return None
    try:
        corners = [Decimal((box.findtext(corner) or "").strip()) for corner in CORNERS]
    except InvalidOperation:
        dataset.add_fault(
            FaultKind.MALFORMED, where, f"{name}: <bndbox> needs a number in each of {', '.join(CORNERS)}"
        )
        return None
    crowd = (element.findtext(CROWD_TAG) or "").strip() == "1"
    extra = _read_extra(element, ("name", "bndbox", CROWD_TAG), where, dataset)
    return SourceAnnotation(name, _box(corners), f"{where} ({name})", crowd, extra)


def _box(corners: list[Decimal]) -> tuple[float, float, float, float]:
    if not all(corner.is_finite() for corner in corners):
        return (math.nan,) * 4
    with localcontext(prec=DECIMAL_DIGITS):
        xmin, ymin, xmax, ymax = corners
        return float(xmin - 1), float(ymin - 1), float(xmax - xmin + 1), float(ymax - ymin + 1)


def _read_extra(
    element: ET.Element, known: tuple[str, ...], where: str, dataset: SourceDataset
) -> dict[str, Any]:
    """Return the unknown children: plain ones by name, flags as numbers, nested ones as XML text."""
    extra: dict[str, Any] = {}
    nested: list[str] = []
    tags = [child.tag for child in element]
    for child in element:
        text = (child.text or "").strip()
        if child.tag in known:
            continue
        if child.tag == EXTRA_TAG:
            try:
                written = json.loads(text)
            except json.JSONDecodeError:
                written = None
            if isinstance(written, dict):
                extra |= written
                continue
        if len(child) or child.attrib or tags.count(child.tag) > 1:
            child.tail = None
            nested.append(ET.tostring(child, encoding="unicode"))
        elif child.tag in FLAGS and _whole_number(text) is not None:
            extra[child.tag] = _whole_number(text)
        else:
            extra[child.tag] = text
    if nested:
        extra[XML_KEY] = nested
    return extra


def _whole_number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def write_voc(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write a VOC data set: ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main``.

    VOC cannot express crowds and most of ``extra``: they are written to additional elements, which its
    readers ignore. A frame's bin, burst, group, times, annotator, and image keys that are not plain text are
    lost.

    Args:
        frames: Labelled frames, each with its file name under ``JPEGImages/``.
        taxonomy: The classes that the labels' ids refer to.
        out: An existing folder.
    """
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for frame, name in frames:
        image = out / "JPEGImages" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(frame.jpeg)
        identity = Path(name).with_suffix("").as_posix()
        lists[frame.split].append(identity)
        document = _document(frame, name, taxonomy)
        ET.indent(document)
        path = out / "Annotations" / f"{identity}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ET.tostring(document, encoding="unicode") + "\n", encoding="utf-8")
    for split, identities in lists.items():
        write_text(
            out / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{identity}\n" for identity in identities)
        )
    write_text(
        out / "ImageSets" / "Main" / "trainval.txt",
        "".join(f"{identity}\n" for identity in lists["train"] + lists["val"]),
    )


def _document(frame: Frame, name: str, taxonomy: Taxonomy) -> ET.Element:
    labels = frame.labels
    assert labels is not None, "only labelled frames are exported"
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = name
    size = ET.SubElement(root, "size")
    for side, length in (("width", frame.width), ("height", frame.height), ("depth", 3)):
        ET.SubElement(size, side).text = str(length)
    _write_extra(
        root, {key: value for key, value in frame.extra.items() if isinstance(value, str) or key == XML_KEY}
    )
    columns = labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), labels.extra
    for box, class_id, crowd, extra in zip(*columns, strict=True):
        element = ET.SubElement(root, "object")
        ET.SubElement(element, "name").text = taxonomy.name_of[class_id]
        corners = ET.SubElement(element, "bndbox")
        for corner, coordinate in zip(CORNERS, _corners(box), strict=True):
            ET.SubElement(corners, corner).text = coordinate
        if crowd:
            ET.SubElement(element, CROWD_TAG).text = "1"
        _write_extra(element, dict(extra))
    return root


def _corners(box: list[float]) -> list[str]:
    with localcontext(prec=DECIMAL_DIGITS):
        x, y, w, h = (Decimal(repr(value)) for value in box)
        return [format(value.normalize(), "f") for value in (x + 1, y + 1, x + w, y + h)]


def _write_extra(element: ET.Element, extra: dict[str, Any]) -> None:
    for text in extra.pop(XML_KEY, []):
        element.append(ET.fromstring(text))
    other: dict[str, Any] = {}
    for key, value in extra.items():
        plain = (
            isinstance(value, str)
            and value == value.strip()
            and re.fullmatch(r"[\x20-\ud7ff\ue000-\ufffd]*", value)
        )
        flag = key in FLAGS and isinstance(value, int) and not isinstance(value, bool)
        taken = key in (EXTRA_TAG, CROWD_TAG, "name", "bndbox", "filename", "size", "object") or (
            key in FLAGS and not flag
        )
        if re.fullmatch(r"[A-Za-z_][\w.-]*", key, re.ASCII) and not taken and (plain or flag):
            ET.SubElement(element, key).text = str(value)
        else:
            other[key] = value
    if other:
        ET.SubElement(element, EXTRA_TAG).text = json.dumps(other, sort_keys=True)
