"""COCO's object detection format (cocodataset.org/#format-data), read and written without loss.

An image also has the log's own keys: ``split, group, bin_id, burst, captured_at, labelled_at, annotator``.
Every other key of an image or annotation is kept in ``extra``, including ``id``, ``area`` and
``segmentation``; a licence is kept with its image. ``info`` is not kept, and neither is anything of a
category but its name, since the taxonomy holds the rest.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataset.formats.faults import FaultKind
from dataset.formats.sources import (
    SPLIT_OF_NAME,
    SourceAnnotation,
    SourceDataset,
    SourceImage,
    parse_number,
    parse_time,
)
from dataset.frame import SPLITS, Frame
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.taxonomy import Taxonomy

IMAGE_KEYS = ("file_name", "width", "height")
TEXT_KEYS = ("group", "bin_id", "burst", "annotator")
TIME_KEYS = ("captured_at", "labelled_at")
BOX_KEYS = ("image_id", "category_id", "bbox", "iscrowd")


def read_coco(source: Path) -> SourceDataset:
    """Read a COCO data set.

    Images are searched for beside the annotation file, under ``images/``, and in folders named like the
    file's split.

    Args:
        source: An annotation file, or a folder with ``annotations.json``, with
            ``annotations/instances_*.json``, or with one file per split as Roboflow exports it.

    Returns:
        The data set, with all faults found.

    Raises:
        UserError: If there is no annotation file.
    """
    dataset = SourceDataset()
    paths = _annotation_files(source)
    folder_splits = {SPLIT_OF_NAME.get(path.parent.name) for path in paths}
    has_file_per_split = len(paths) >= len(SPLITS) and folder_splits == set(SPLITS)  # Roboflow's layout
    for path in paths:
        try:
            document = json.loads(path.read_bytes())
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            dataset.add_fault(FaultKind.BROKEN_ANNOTATIONS, str(path), f"not JSON: {error}")
            continue
        lists = ("images", "annotations", "categories")
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
            dataset.add_fault(
                FaultKind.BROKEN_ANNOTATIONS,
                str(path),
                "not COCO: it needs the lists `images`, `annotations` and `categories`",
            )
            continue
        first = len(dataset.images)
        _read_document(document, path, source, dataset)
        if has_file_per_split:
            for image in dataset.images[first:]:
                image.split = image.split or SPLIT_OF_NAME[path.parent.name]
    return dataset


def _annotation_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    for pattern in (
        "annotations.json",
        "*/_annotations.coco.json",
        "_annotations.coco.json",
        "annotations/instances_*.json",
    ):
        if paths := sorted(source.glob(pattern)):
            return paths
    paths = sorted(source.glob("*.json"))
    if len(paths) != 1:
        raise UserError(
            f"{source}: found {len(paths)} JSON files and no annotations.json; "
            "name the COCO annotation file itself"
        )
    return paths


def _read_document(document: dict[str, Any], path: Path, source: Path, dataset: SourceDataset) -> None:
    names = _read_categories(document["categories"], path, dataset)
    images = _read_images(document, path, source, dataset)
    seen: set[Any] = set()
    for index, entry in enumerate(document["annotations"]):
        name = entry.get("id", f"number {index + 1}") if isinstance(entry, dict) else f"number {index + 1}"
        where = f"{path.name}: annotation {name}"
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int | str):
            dataset.add_fault(FaultKind.MALFORMED, where, "not an object with an `image_id`")
        elif entry["image_id"] not in images:
            dataset.add_fault(FaultKind.UNKNOWN_IMAGE, where, f"image_id {entry['image_id']!r}")
        elif (image := images[entry["image_id"]]) is not None:  # None: the image has a fault already
            where += f" ({image.file_name})"
            identity = entry.get("id")
            if isinstance(identity, int | str) and identity in seen:
                dataset.add_fault(FaultKind.DUPLICATE_ID, where, f"annotation id {identity!r} occurs before")
                continue
            if isinstance(identity, int | str):
                seen.add(identity)
            if annotation := _read_annotation(entry, names, where, dataset):
                image.annotations.append(annotation)


def _read_categories(entries: list[Any], path: Path, dataset: SourceDataset) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get("id"), int)
        ):
            dataset.add_fault(
                FaultKind.MALFORMED,
                f"{path.name}: categories",
                f"{entry!r} lacks an `id` (a whole number) or a `name`",
            )
        elif names.setdefault(entry["id"], entry["name"]) != entry["name"]:
            dataset.add_fault(
                FaultKind.DUPLICATE_ID,
                f"{path.name}: category {entry['id']}",
                f"is both {names[entry['id']]!r} and {entry['name']!r}",
            )
    dataset.categories.update(names.values())
    return names


def _read_images(
    document: dict[str, Any], path: Path, source: Path, dataset: SourceDataset
) -> dict[Any, SourceImage | None]:
    root = source if source.is_dir() else source.parent
    word = path.stem.removeprefix("instances_") if path.stem.startswith("instances_") else path.parent.name
    beside = path.parent
    folders = [beside / "images", beside, root / "images" / word, root / word, root / "images", root]
    folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    licenses = {
        entry["id"]: entry
        for entry in document.get("licenses") or []
        if isinstance(entry, dict) and "id" in entry
    }
    entries = document["images"]
    ids = Counter(
        entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
    )
    images: dict[Any, SourceImage | None] = {}
    for index, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("id"), int | str)
            or not isinstance(entry.get("file_name"), str)
        ):
            dataset.add_fault(
                FaultKind.MALFORMED,
                f"{path.name}: image number {index + 1}",
                "lacks an `id` or a `file_name`",
            )
            continue
        name = entry["file_name"]
        if ids[entry["id"]] > 1:
            dataset.add_fault(
                FaultKind.DUPLICATE_ID,
                f"{path.name}: image {entry['id']!r}",
                f"{name}: this id occurs {ids[entry['id']]} times",
            )
            images[entry["id"]] = None
        elif not name or Path(name).is_absolute() or ".." in Path(name).parts:
            dataset.add_fault(
                FaultKind.MALFORMED,
                f"{path.name}: image {entry['id']!r}",
                f"file_name {name!r} leads out of the data set",
            )
            images[entry["id"]] = None
        else:
            file = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)
            images[entry["id"]] = image = _read_image(
                entry, file, licenses, f"{path.name}: image {entry['id']!r} ({name})", dataset
            )
            dataset.images.append(image)
    return images


def _read_image(
    entry: dict[str, Any], file: Path, licenses: dict[Any, Any], where: str, dataset: SourceDataset
) -> SourceImage:
    image = SourceImage(file, entry["file_name"])
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int) and isinstance(height, int):
        image.declared_size = (width, height)
    elif width is not None or height is not None:
        dataset.add_fault(
            FaultKind.MALFORMED, where, f"width {width!r}, height {height!r}: not both whole numbers"
        )
    for key in TEXT_KEYS:
        if (value := entry.get(key)) is not None:
            if isinstance(value, str | int):
                setattr(image, key, str(value))
            else:
                dataset.add_fault(
                    FaultKind.MALFORMED, where, f"{key} {value!r}: neither text nor a whole number"
                )
    for key in TIME_KEYS:
        if entry.get(key) is not None:
            try:
                setattr(image, key, parse_time(entry[key]))
            except ValueError as error:
                dataset.add_fault(FaultKind.MALFORMED, where, f"{key}: {error}")
    image.extra = {
        key: value
        for key, value in entry.items()
        if key not in (*IMAGE_KEYS, *TEXT_KEYS, *TIME_KEYS, "split")
    }
    if "split" in entry:
        if entry["split"] in SPLITS:
            image.split = entry["split"]
        else:
            image.extra["source_split"] = entry["split"]  # its meaning is unknown
    if isinstance(image.extra.get("license"), int | str) and image.extra["license"] in licenses:
        image.extra["license"] = licenses[image.extra["license"]]
    _is_json(image.extra, where, dataset)
    return image


def _read_annotation(
    entry: dict[str, Any], names: dict[int, str], where: str, dataset: SourceDataset
) -> SourceAnnotation | None:
    category, bbox, crowd = entry.get("category_id"), entry.get("bbox"), entry.get("iscrowd", 0)
    if not isinstance(category, int) or category not in names:
        dataset.add_fault(
            FaultKind.UNKNOWN_CATEGORY, where, f"category_id {category!r} is not among the file's categories"
        )
        return None
    values = [parse_number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(values) != 4 or None in values:
        dataset.add_fault(FaultKind.MALFORMED, where, f"bbox {bbox!r} is not a list of four numbers")
        return None
    if crowd not in (0, 1):
        dataset.add_fault(FaultKind.MALFORMED, where, f"iscrowd {crowd!r} is neither 0 nor 1")
        return None
    x, y, w, h = (float(value) for value in values if value is not None)
    extra = {key: value for key, value in entry.items() if key not in BOX_KEYS}
    if "area" in extra and extra["area"] == w * h:
        del extra["area"]  # follows from the box, and is computed again on export
    return (
        SourceAnnotation(names[category], (x, y, w, h), where, bool(crowd), extra)
        if _is_json(extra, where, dataset)
        else None
    )


def _is_json(extra: dict[str, Any], where: str, dataset: SourceDataset) -> bool:
    try:
        json.dumps(extra, allow_nan=False)
    except ValueError:
        dataset.add_fault(FaultKind.MALFORMED, where, "holds NaN or infinity, which JSON cannot represent")
        return False
    return True


def write_coco(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write a COCO data set: ``images/`` and, last, ``annotations.json``.

    If all images, or all annotations, still have unique whole ids from the data sets they came from, these
    are written again; otherwise they are numbered from 1.

    Args:
        frames: Labelled frames, each with its file name under ``images/``.
        taxonomy: The classes, which become the categories.
        out: An existing folder.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    licenses: list[dict[str, Any]] = []
    image_of: list[int] = []  # index in images by index in annotations
    license_of: dict[int, int] = {}  # index in licenses by index in images
    for frame, name in frames:
        path = out / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(frame.jpeg)
        labels = frame.labels
        assert labels is not None, "only labelled frames are exported"
        image = frame.extra | {
            "file_name": name,
            "width": frame.width,
            "height": frame.height,
            "split": frame.split,
            "group": frame.group,
        }
        texts = {"bin_id": frame.bin_id, "burst": frame.burst, "annotator": labels.annotator}
        times = {"captured_at": frame.captured_at, "labelled_at": labels.labelled_at}
        image |= {key: value for key, value in texts.items() if value is not None}
        image |= {key: value.isoformat() for key, value in times.items() if value is not None}
        if isinstance(image.get("license"), dict):
            if image["license"] not in licenses:
                licenses.append(image["license"])
            license_of[len(images)] = licenses.index(image["license"])
        for (x, y, w, h), class_id, crowd, extra in zip(
            labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), labels.extra, strict=True
        ):
            box = {"category_id": class_id, "bbox": [x, y, w, h], "iscrowd": int(crowd)}
            annotations.append({"area": w * h} | extra | box)
            image_of.append(len(images))
        images.append(image)
    license_ids = _assign_ids(licenses)
    for index, license_index in license_of.items():
        images[index]["license"] = license_ids[license_index]
    image_ids = _assign_ids(images)
    _assign_ids(annotations)
    for annotation, index in zip(annotations, image_of, strict=True):
        annotation["image_id"] = image_ids[index]
    categories = [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in taxonomy.classes]
    document = {"info": {"description": "exported from a trashnet dataset log"}, "licenses": licenses}
    write_json(
        out / "annotations.json",
        document | {"images": images, "annotations": annotations, "categories": categories},
    )


def _assign_ids(entries: list[dict[str, Any]]) -> list[int]:
    """Give every entry a unique ``id``, and return the ids."""
    ids = [entry.get("id") for entry in entries]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids) or len(set(ids)) < len(ids):
        ids = list(range(1, len(entries) + 1))
    for entry, identity in zip(entries, ids, strict=True):
        entry["id"] = identity
    return [int(i) for i in ids if i is not None]
