"""YOLO's format: ``data.yaml`` names classes and lists; a text file per image has lines ``class x y w h``.

``x, y`` is the box's centre, and all four numbers are fractions of the image's size. YOLO does not declare
image sizes, so boxes refer to the image as a viewer shows it (with EXIF applied).
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dataset.formats.faults import FaultKind
from dataset.formats.sources import (
    IMAGE_SUFFIXES,
    SPLIT_OF_NAME,
    SourceAnnotation,
    SourceDataset,
    SourceImage,
    drop_incomplete_splits,
)
from dataset.frame import SPLITS, Frame, Split
from trashnet.errors import UserError
from trashnet.files import write_text
from trashnet.taxonomy import Taxonomy


def read_yolo(source: Path) -> SourceDataset:
    """Read a YOLO data set, whose lists are folders or text files of paths.

    An image without a text file is a background. A line of 5 numbers is a box; a sixth is kept as
    ``confidence``. A line of 7 or more numbers, an odd count, is a polygon: its bounds become the box, and it
    is kept as COCO's ``segmentation``, in pixels. Splits count only if train, val and test are all there.

    Args:
        source: ``data.yaml``, or the folder that holds it.

    Returns:
        The data set, with all faults found.

    Raises:
        UserError: If there is no such file, or if it names no classes or no images.
    """
    path = _description_file(source)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise UserError(
            f"{path}: not a YOLO data set: it needs `names` and at least one of `train`, `val`, `test`"
        )
    names = _names(document, path)
    dataset = SourceDataset(categories=set(names.values()))
    root = path.parent / str(document.get("path") or ".")
    root = root if root.is_dir() else path.parent  # written on another machine
    split_of: dict[Path, Split] = {}
    for key, split in SPLIT_OF_NAME.items():
        for listed in _as_list(document.get(key)):
            for file in _listed_files(root, listed, path, key, dataset):
                if split_of.setdefault(file, split) != split:
                    where = f"{path.name}: {key}"
                    dataset.add_fault(
                        FaultKind.CONTRADICTION,
                        where,
                        f"{_relative(file, root)} is in {split_of[file]!r} as well",
                    )
    if not split_of and not dataset.faults:
        raise UserError(f"{path}: `train`, `val` and `test` name no image")
    for file, split in split_of.items():
        image = SourceImage(file, _file_name(file, root, split), relative=True, split=split)
        _read_labels(image, _label_file(file), names, root, dataset)
        dataset.images.append(image)
    _add_orphans(split_of, root, dataset)
    drop_incomplete_splits(dataset.images)
    return dataset


def _description_file(source: Path) -> Path:
    if source.is_file():
        return source
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (source / name).is_file():
            return source / name
    paths = sorted(source.glob("*.yaml"))
    if len(paths) != 1:
        raise UserError(
            f"{source}: found {len(paths)} YAML files and no data.yaml; "
            "name the file that lists `names` and `train`"
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


def _listed_files(root: Path, listed: str, path: Path, key: str, dataset: SourceDataset) -> list[Path]:
    location = root / listed
    if not location.exists() and listed.startswith("../"):
        location = root / listed.removeprefix("../")  # Roboflow's paths are relative to a folder below
    if location.is_dir():
        return sorted(file for file in location.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if location.is_file():
        text = location.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return [(location.parent if line.startswith("./") else root) / line for line in lines]
    dataset.add_fault(
        FaultKind.MISSING_FILE, f"{path.name}: {key}", f"{listed} is neither a folder nor a list"
    )
    return []


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _file_name(image: Path, root: Path, split: str) -> str:
    """Return the relative path without the folders that only name images and splits."""
    parts = Path(_relative(image, root)).parts
    skipped = {"images", *SPLIT_OF_NAME}
    while len(parts) > 1 and parts[0] in skipped:
        parts = parts[1:]
    return "/".join(part for part in parts if part not in ("..", "/"))


def _label_file(image: Path) -> Path:
    """Return ``.../labels/a.txt`` for ``.../images/a.jpg``; the last ``images`` counts, as in Ultralytics."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _add_orphans(images: Iterable[Path], root: Path, dataset: SourceDataset) -> None:
    expected = {_label_file(image) for image in images}
    for folder in sorted({path.parent for path in expected if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in expected and path.name != "classes.txt":
                dataset.add_fault(
                    FaultKind.MISSING_FILE, _relative(path, root), "labels an image that no list names"
                )


def _read_labels(
    image: SourceImage, path: Path, names: dict[int, str], root: Path, dataset: SourceDataset
) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        dataset.add_fault(FaultKind.BROKEN_ANNOTATIONS, _relative(path, root), f"cannot be read: {error}")
        return
    for number, line in enumerate(lines, 1):
        where = f"{_relative(path, root)}: line {number}"
        try:
            values = [float(value) for value in line.split()]
        except ValueError:
            dataset.add_fault(FaultKind.MALFORMED, where, f"{line.strip()[:60]!r} is not numbers")
            continue
        if not values:
            continue
        if len(values) not in (5, 6) and (len(values) < 7 or len(values) % 2 == 0):
            dataset.add_fault(
                FaultKind.MALFORMED,
                where,
                f"{len(values)} numbers: neither a box (5) nor a polygon (an odd number from 7 on)",
            )
        elif not values[0].is_integer() or int(values[0]) not in names:
            dataset.add_fault(
                FaultKind.UNKNOWN_CATEGORY, where, f"class number {line.split()[0]} is not among `names`"
            )
        else:
            image.annotations.append(_annotation(names[int(values[0])], values[1:], where))


def _annotation(name: str, values: list[float], where: str) -> SourceAnnotation:
    extra: dict[str, Any] = {}
    if not all(map(math.isfinite, values)):
        return SourceAnnotation(name, (math.nan,) * 4, where)
    if len(values) >= 6:
        xs, ys = values[0::2], values[1::2]
        left, top, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        extra["segmentation"] = [values]
    else:
        x, y, w, h = values[:4]
        left, top = x - w / 2, y - h / 2
        if len(values) == 5:
            extra["confidence"] = values[4]
    return SourceAnnotation(name, (left, top, w, h), where, extra=extra)


def write_yolo(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write a YOLO data set: ``images/<split>``, ``labels/<split>`` and, last, ``data.yaml``.

    Numbers are written with all their digits, so boxes are read back within 1e-6 pixels. YOLO cannot express
    crowds: they are left out, because as a box a crowd would teach a model that many objects are one. It also
    has no polygons beside boxes, ``extra``, groups, bins, bursts, times and annotators.

    Args:
        frames: Labelled frames, each with its file name under its split's folders.
        taxonomy: The classes that the labels' ids refer to.
        out: An existing folder.
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
