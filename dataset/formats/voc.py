"""PASCAL VOC (devkit of 2012): ``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/Main/{train,val,test}.txt``.

Coordinates are the devkit's: the first pixel is 1 and ``xmax, ymax`` name the last pixel inside, so ``x =
xmin - 1`` and ``w = xmax - xmin + 1``. Tools that count from 0 write a box at most one pixel further left and
up than they meant: within the pixel of rounding that an import clips. Arithmetic on coordinates is decimal,
so that fractions too survive the way out and back exactly.
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
from dataset.formats.sources import IMAGE_SUFFIXES, Picture, Source, Thing, only_if_complete
from dataset.log import SPLITS, Frame
from trashnet.errors import UserError
from trashnet.files import write_text
from trashnet.taxonomy import Taxonomy

FLAGS = ("truncated", "difficult", "occluded")
CROWD, EXTRA, XML = (
    "iscrowd",
    "extra",
    "voc_xml",
)  # elements of ours that VOC's readers pass over; key of elements kept as they stood
DIGITS = (
    800  # of decimal arithmetic: the sum of the largest and the least float64, written in full, has no more
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path) -> Source:
    """Read a VOC folder, or one where XML and images lie side by side (labelImg, Roboflow).

    Every XML file is an image, one without objects a background. Elements we have no word for are kept in
    ``extra``. Not held by VOC: bin, burst, group and times. Splits are heeded if ImageSets lists train, val
    and test. Raises :class:`UserError` if there is nothing to read; all other faults are collected.
    """
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; a VOC data set is one with Annotations/ and JPEGImages/")
    annotations = source / "Annotations" if (source / "Annotations").is_dir() else source
    paths = sorted(annotations.rglob("*.xml"))
    if not paths:
        raise UserError(
            f"{source}: no *.xml under {annotations}; a VOC data set has one per image in Annotations/"
        )
    found = Source()
    splits = _image_sets(source)
    for path in paths:
        identity = path.relative_to(annotations).with_suffix("").as_posix()
        try:
            # ElementTree fetches nothing from outside, and expat (2.4 on) bounds what entities may grow to.
            root = ET.parse(path).getroot()
        except (ET.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
            found.fault(FaultKind.BROKEN_ANNOTATIONS, str(path.relative_to(source)), f"not XML: {error}")
            continue
        picture = _picture(root, path, identity, source, found)
        said = splits.get(identity, set())
        picture.split = said.pop() if len(said) == 1 else None  # type: ignore[assignment]
        found.pictures.append(picture)
    _unannotated(source, found)
    only_if_complete(found.pictures)
    return found


def _image_sets(source: Path) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for split in SPLITS:
        path = source / "ImageSets" / "Main" / f"{split}.txt"
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip():
                    splits.setdefault(line.strip(), set()).add(split)
    return splits


def _unannotated(source: Path, found: Source) -> None:
    images = source / "JPEGImages"
    if images.is_dir():
        known = {picture.path for picture in found.pictures}
        for path in sorted(images.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path not in known:
                found.fault(
                    FaultKind.MISSING_FILE,
                    str(path.relative_to(source)),
                    "has no XML file: an empty one would say it is background",
                )


def _picture(root: ET.Element, path: Path, identity: str, source: Path, found: Source) -> Picture:
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        name = Path(name).name
    where = str(path.relative_to(source))
    file = _image_file(name, path, identity, source)
    picture = Picture(file, name or file.name)
    size = [_whole(root.findtext(f"size/{side}")) for side in ("width", "height")]
    if size[0] and size[1]:  # tools that did not look at the image write 0
        picture.declared = (size[0], size[1])
    for place, element in enumerate(root.findall("object")):
        if thing := _thing(element, f"{where}: object {place + 1}", found):
            picture.things.append(thing)
            found.categories.add(thing.category)
    picture.extra = _rest(root, ("filename", "size", "object"), f"{where}: <annotation>", found)
    return picture


def _image_file(name: str, path: Path, identity: str, source: Path) -> Path:
    folders = [source / "JPEGImages", path.parent, source / "images", source]
    candidates = [folder / name for folder in folders if name]
    candidates += [
        folder / f"{identity}{suffix}" for folder in folders for suffix in (".jpg", ".jpeg", ".png", ".JPG")
    ]
    candidates += [path.with_suffix(suffix) for suffix in (".jpg", ".jpeg", ".png", ".JPG")]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _thing(element: ET.Element, where: str, found: Source) -> Thing | None:
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    if not name or box is None:
        found.fault(FaultKind.MALFORMED, where, "lacks a <name> or a <bndbox>")
        return None
    try:
        corners = [Decimal((box.findtext(corner) or "").strip()) for corner in CORNERS]
    except InvalidOperation:
        found.fault(
            FaultKind.MALFORMED, where, f"{name}: <bndbox> needs a number in each of {', '.join(CORNERS)}"
        )
        return None
    crowd = (element.findtext(CROWD) or "").strip() == "1"
    extra = _rest(element, ("name", "bndbox", CROWD), where, found)
    return Thing(name, _box(corners), f"{where} ({name})", crowd, extra)


def _box(corners: list[Decimal]) -> tuple[float, float, float, float]:
    if not all(corner.is_finite() for corner in corners):
        return (math.nan,) * 4
    with localcontext(prec=DIGITS):
        xmin, ymin, xmax, ymax = corners
        return float(xmin - 1), float(ymin - 1), float(xmax - xmin + 1), float(ymax - ymin + 1)


def _rest(element: ET.Element, known: tuple[str, ...], where: str, found: Source) -> dict[str, Any]:
    """The children we have no word for: plain ones by name, flags as numbers, and what has children itself as its XML text."""
    extra: dict[str, Any] = {}
    whole: list[str] = []
    tags = [child.tag for child in element]
    for child in element:
        text = (child.text or "").strip()
        if child.tag in known:
            continue
        if child.tag == EXTRA:
            try:
                ours = json.loads(text)
            except json.JSONDecodeError:
                ours = None
            if isinstance(ours, dict):
                extra |= ours
                continue
        if len(child) or child.attrib or tags.count(child.tag) > 1:
            child.tail = None
            whole.append(ET.tostring(child, encoding="unicode"))
        elif child.tag in FLAGS and _whole(text) is not None:
            extra[child.tag] = _whole(text)
        else:
            extra[child.tag] = text
    if whole:
        extra[XML] = whole
    return extra


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def write_voc(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main``; each frame comes with its file name there, and must be labelled.

    VOC has no word for crowds and for most of ``extra``: they stand in elements of ours that its readers pass
    over. Lost are a frame's bin, burst, group, times, annotator and image keys that are not plain text.
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
    _write_rest(
        root, {key: value for key, value in frame.extra.items() if isinstance(value, str) or key == XML}
    )
    columns = labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), labels.extra
    for box, class_id, crowd, extra in zip(*columns, strict=True):
        element = ET.SubElement(root, "object")
        ET.SubElement(element, "name").text = taxonomy.name_of[class_id]
        corners = ET.SubElement(element, "bndbox")
        for corner, coordinate in zip(CORNERS, _corners(box), strict=True):
            ET.SubElement(corners, corner).text = coordinate
        if crowd:
            ET.SubElement(element, CROWD).text = "1"
        _write_rest(element, dict(extra))
    return root


def _corners(box: list[float]) -> list[str]:
    with localcontext(prec=DIGITS):
        x, y, w, h = (Decimal(repr(value)) for value in box)
        return [format(value.normalize(), "f") for value in (x + 1, y + 1, x + w, y + h)]


def _write_rest(element: ET.Element, extra: dict[str, Any]) -> None:
    for text in extra.pop(XML, []):
        element.append(ET.fromstring(text))
    other: dict[str, Any] = {}
    for key, value in extra.items():
        plain = (
            isinstance(value, str)
            and value == value.strip()
            and re.fullmatch(r"[\x20-\ud7ff\ue000-\ufffd]*", value)
        )
        flag = key in FLAGS and isinstance(value, int) and not isinstance(value, bool)
        taken = key in (EXTRA, CROWD, "name", "bndbox", "filename", "size", "object") or (
            key in FLAGS and not flag
        )
        if re.fullmatch(r"[A-Za-z_][\w.-]*", key, re.ASCII) and not taken and (plain or flag):
            ET.SubElement(element, key).text = str(value)
        else:
            other[key] = value
    if other:
        ET.SubElement(element, EXTRA).text = json.dumps(other, sort_keys=True)
