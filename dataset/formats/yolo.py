"""YOLO's format: ``data.yaml`` names classes and lists, one text file per image holds ``class x y w h`` as fractions of its size.

x and y are the box's centre. Sizes are not declared, so boxes are taken to lie on the image as a viewer shows
it (EXIF applied).
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dataset.formats.faults import FaultKind
from dataset.formats.sources import IMAGE_SUFFIXES, SPLIT_WORDS, Picture, Source, Thing, only_if_complete
from dataset.log import SPLITS, Frame, Split
from trashnet.errors import UserError
from trashnet.files import write_text
from trashnet.taxonomy import Taxonomy


def read_yolo(source: Path) -> Source:
    """Read a data set by its ``data.yaml`` (the file, or the folder it is in); lists are folders or text files of paths.

    An image without a text file is a background. A line of 5 numbers is a box, a sixth is kept as
    ``confidence``; an odd number from 7 on is a polygon: its bounds become the box, and it is kept as COCO's
    ``segmentation``, in pixels. Splits are heeded if train, val and test are all there. Raises
    :class:`UserError` if there is nothing to read.
    """
    path = _description(source)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise UserError(
            f"{path}: not a YOLO data set: it needs `names` and at least one of `train`, `val`, `test`"
        )
    names = _names(document, path)
    found = Source(categories=set(names.values()))
    root = path.parent / str(document.get("path") or ".")
    root = root if root.is_dir() else path.parent  # written on another machine
    split_of: dict[Path, Split] = {}
    for word, split in SPLIT_WORDS.items():
        for listed in _as_list(document.get(word)):
            for image in _images(root, listed, path, word, found):
                if split_of.setdefault(image, split) != split:
                    where = f"{path.name}: {word}"
                    found.fault(
                        FaultKind.CONTRADICTION,
                        where,
                        f"{_relative(image, root)} is in {split_of[image]!r} as well",
                    )
    if not split_of and not found.faults:
        raise UserError(f"{path}: `train`, `val` and `test` name no image")
    for image, split in split_of.items():
        picture = Picture(image, _file_name(image, root, split), relative=True, split=split)
        _read_labels(picture, _label_file(image), names, root, found)
        found.pictures.append(picture)
    _orphans(split_of, root, found)
    only_if_complete(found.pictures)
    return found


def _description(source: Path) -> Path:
    if source.is_file():
        return source
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (source / name).is_file():
            return source / name
    paths = sorted(source.glob("*.yaml"))
    if len(paths) != 1:
        raise UserError(
            f"{source}: found {len(paths)} YAML files and no data.yaml; name the file that lists `names` and `train`"
        )
    return paths[0]


def _names(document: dict[str, Any], path: Path) -> dict[int, str]:
    names = document.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(str(key).isdigit() for key in names):
        raise UserError(f"{path}: `names` must be a list of class names, or map class numbers to them")
    if isinstance(count := document.get("nc"), int) and count != len(names):
        raise UserError(f"{path}: `nc` is {count}, but `names` has {len(names)}; one of them is wrong")
    return {int(key): str(name) for key, name in names.items()}


def _as_list(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _images(root: Path, listed: str, path: Path, word: str, found: Source) -> list[Path]:
    place = root / listed
    if not place.exists() and listed.startswith("../"):
        place = root / listed.removeprefix("../")  # Roboflow writes its lists as seen from a folder below
    if place.is_dir():
        return sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if place.is_file():
        lines = [line.strip() for line in place.read_text(encoding="utf-8", errors="replace").splitlines()]
        near = [root if not line.startswith("./") else place.parent for line in lines if line]
        return [folder / line for folder, line in zip(near, filter(None, lines), strict=True)]
    found.fault(FaultKind.MISSING_FILE, f"{path.name}: {word}", f"{listed} is neither a folder nor a list")
    return []


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _file_name(image: Path, root: Path, split: str) -> str:
    """The name without the folders that only say that it is an image, and of which split."""
    parts = Path(_relative(image, root)).parts
    skipped = {"images", *SPLIT_WORDS}
    while len(parts) > 1 and parts[0] in skipped:
        parts = parts[1:]
    return "/".join(part for part in parts if part not in ("..", "/"))


def _label_file(image: Path) -> Path:
    """``.../images/a.jpg`` is labelled by ``.../labels/a.txt``; the last folder called images counts, as in Ultralytics' loader."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _orphans(images: Iterable[Path], root: Path, found: Source) -> None:
    expected = {_label_file(image) for image in images}
    for folder in sorted({path.parent for path in expected if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in expected and path.name != "classes.txt":
                found.fault(
                    FaultKind.MISSING_FILE, _relative(path, root), "labels an image that no list names"
                )


def _read_labels(picture: Picture, path: Path, names: dict[int, str], root: Path, found: Source) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        found.fault(FaultKind.BROKEN_ANNOTATIONS, _relative(path, root), f"cannot be read: {error}")
        return
    for place, line in enumerate(lines):
        where = f"{_relative(path, root)}: line {place + 1}"
        try:
            values = [float(value) for value in line.split()]
        except ValueError:
            found.fault(FaultKind.MALFORMED, where, f"{line.strip()[:60]!r} is not numbers")
            continue
        if not values:
            continue
        if len(values) not in (5, 6) and (len(values) < 7 or len(values) % 2 == 0):
            found.fault(
                FaultKind.MALFORMED,
                where,
                f"{len(values)} numbers: neither a box (5) nor a polygon (an odd number from 7 on)",
            )
        elif not values[0].is_integer() or int(values[0]) not in names:
            found.fault(
                FaultKind.UNKNOWN_CATEGORY, where, f"class number {line.split()[0]} is not among `names`"
            )
        else:
            picture.things.append(_thing(names[int(values[0])], values[1:], where))


def _thing(name: str, values: list[float], where: str) -> Thing:
    extra: dict[str, Any] = {}
    if not all(map(math.isfinite, values)):
        return Thing(name, (math.nan,) * 4, where)
    if len(values) >= 6:
        xs, ys = values[0::2], values[1::2]
        left, top, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        extra["segmentation"] = [values]
    else:
        x, y, w, h = values[:4]
        left, top = x - w / 2, y - h / 2
        if len(values) == 5:
            extra["confidence"] = values[4]
    return Thing(name, (left, top, w, h), where, extra=extra)


def write_yolo(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write ``images/<split>``, ``labels/<split>`` and, last, ``data.yaml``; each frame comes with its name, and must be labelled.

    Boxes come back within 1e-6 pixels: numbers are written with all their digits. YOLO has no word for
    crowds, which are left out (as a box they would teach that many things are one), nor for polygons beside
    boxes, ``extra``, groups, bins, bursts, times and annotators.
    """
    for split in SPLITS:
        (out / "images" / split).mkdir(parents=True, exist_ok=True)
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
    for frame, name in frames:
        image = out / "images" / frame.split / name
        text = (out / "labels" / frame.split / name).with_suffix(".txt")
        image.parent.mkdir(parents=True, exist_ok=True)
        text.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(frame.jpeg)
        labels = frame.labels
        assert labels is not None, "only labelled frames are exported"
        lines = []
        for (x, y, w, h), class_id, crowd in zip(
            labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), strict=True
        ):
            if not crowd:
                centre = (x + w / 2) / frame.width, (y + h / 2) / frame.height
                lines.append(
                    f"{class_id - 1} {centre[0]!r} {centre[1]!r} {w / frame.width!r} {h / frame.height!r}\n"
                )
        text.write_text("".join(lines), encoding="utf-8")
    document: dict[str, Any] = {"path": "."}
    document |= {split: f"images/{split}" for split in SPLITS}
    document["names"] = dict(enumerate(taxonomy.names))
    write_text(out / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
