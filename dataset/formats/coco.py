"""COCO's object detection format (cocodataset.org/#format-data), read and written without loss.

Per image the log's own words stand beside COCO's: ``split, group, bin_id, burst, captured_at, labelled_at,
annotator``. Every other key of an image or annotation is kept in ``extra``, ``id``, ``area`` and
``segmentation`` included; a licence is kept with its image. Not kept: ``info``, and of the categories all but
their names, since the taxonomy says the rest.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataset.formats.faults import FaultKind
from dataset.formats.sources import SPLIT_WORDS, Picture, Source, Thing, instant, number
from dataset.log import SPLITS, Frame
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.taxonomy import Taxonomy

IMAGE_KEYS = ("file_name", "width", "height")
WORDS = ("group", "bin_id", "burst", "annotator")
TIMES = ("captured_at", "labelled_at")
BOX_KEYS = ("image_id", "category_id", "bbox", "iscrowd")


def read_coco(source: Path) -> Source:
    """Read an annotation file, or a folder with one (``annotations.json``, ``annotations/instances_*.json``, Roboflow's per split).

    Images are looked for beside the file, under ``images/``, and in folders named like the file's split.
    Raises :class:`UserError` if there is nothing to read; all other faults are collected.
    """
    found = Source()
    paths = _annotation_files(source)
    for path in paths:
        try:
            document = json.loads(path.read_bytes())
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            found.fault(FaultKind.BROKEN_ANNOTATIONS, str(path), f"not JSON: {error}")
            continue
        lists = ("images", "annotations", "categories")
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
            found.fault(
                FaultKind.BROKEN_ANNOTATIONS,
                str(path),
                "not COCO: it needs the lists `images`, `annotations` and `categories`",
            )
            continue
        before = len(found.pictures)
        _read_document(document, path, source, found)
        if len(paths) >= len(SPLITS) and {SPLIT_WORDS.get(p.parent.name) for p in paths} == set(
            SPLITS
        ):  # Roboflow: a file per split
            for picture in found.pictures[before:]:
                picture.split = picture.split or SPLIT_WORDS[path.parent.name]
    return found


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
            f"{source}: found {len(paths)} JSON files and no annotations.json; name the COCO annotation file itself"
        )
    return paths


def _read_document(document: dict[str, Any], path: Path, source: Path, found: Source) -> None:
    names = _categories(document["categories"], path, found)
    pictures = _pictures(document, path, source, found)
    seen: set[Any] = set()
    for place, entry in enumerate(document["annotations"]):
        where = f"{path.name}: annotation {entry.get('id', f'number {place + 1}') if isinstance(entry, dict) else f'number {place + 1}'}"
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int | str):
            found.fault(FaultKind.MALFORMED, where, "not an object with an `image_id`")
        elif entry["image_id"] not in pictures:
            found.fault(FaultKind.UNKNOWN_IMAGE, where, f"image_id {entry['image_id']!r}")
        elif (
            picture := pictures[entry["image_id"]]
        ) is not None:  # None: an id that stands twice, noted already
            where += f" ({picture.file_name})"
            identity = entry.get("id")
            if isinstance(identity, int | str) and identity in seen:
                found.fault(FaultKind.DUPLICATE_ID, where, f"annotation id {identity!r} stands before")
                continue
            if isinstance(identity, int | str):
                seen.add(identity)
            if thing := _thing(entry, names, where, found):
                picture.things.append(thing)


def _categories(entries: list[Any], path: Path, found: Source) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get("id"), int)
        ):
            found.fault(
                FaultKind.MALFORMED,
                f"{path.name}: categories",
                f"{entry!r} lacks an `id` (a whole number) or a `name`",
            )
        elif names.setdefault(entry["id"], entry["name"]) != entry["name"]:
            found.fault(
                FaultKind.DUPLICATE_ID,
                f"{path.name}: category {entry['id']}",
                f"is both {names[entry['id']]!r} and {entry['name']!r}",
            )
    found.categories.update(names.values())
    return names


def _pictures(document: dict[str, Any], path: Path, source: Path, found: Source) -> dict[Any, Picture | None]:
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
    pictures: dict[Any, Picture | None] = {}
    for place, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("id"), int | str)
            or not isinstance(entry.get("file_name"), str)
        ):
            found.fault(
                FaultKind.MALFORMED,
                f"{path.name}: image number {place + 1}",
                "lacks an `id` or a `file_name`",
            )
            continue
        name = entry["file_name"]
        if ids[entry["id"]] > 1:
            found.fault(
                FaultKind.DUPLICATE_ID,
                f"{path.name}: image {entry['id']!r}",
                f"{name}: this id stands {ids[entry['id']]} times",
            )
            pictures[entry["id"]] = None
        elif not name or Path(name).is_absolute() or ".." in Path(name).parts:
            found.fault(
                FaultKind.MALFORMED,
                f"{path.name}: image {entry['id']!r}",
                f"file_name {name!r} leads out of the data set",
            )
            pictures[entry["id"]] = None
        else:
            file = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)
            pictures[entry["id"]] = picture = _picture(
                entry, file, licenses, f"{path.name}: image {entry['id']!r} ({name})", found
            )
            found.pictures.append(picture)
    return pictures


def _picture(
    entry: dict[str, Any], file: Path, licenses: dict[Any, Any], where: str, found: Source
) -> Picture:
    picture = Picture(file, entry["file_name"])
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int) and isinstance(height, int):
        picture.declared = (width, height)
    elif width is not None or height is not None:
        found.fault(FaultKind.MALFORMED, where, f"width {width!r}, height {height!r}: not both whole numbers")
    for key in WORDS:
        if (value := entry.get(key)) is not None:
            if isinstance(value, str | int):
                setattr(picture, key, str(value))
            else:
                found.fault(FaultKind.MALFORMED, where, f"{key} {value!r}: neither text nor a whole number")
    for key in TIMES:
        if entry.get(key) is not None:
            try:
                setattr(picture, key, instant(entry[key]))
            except ValueError as error:
                found.fault(FaultKind.MALFORMED, where, f"{key}: {error}")
    picture.extra = {
        key: value for key, value in entry.items() if key not in (*IMAGE_KEYS, *WORDS, *TIMES, "split")
    }
    if "split" in entry:
        if entry["split"] in SPLITS:
            picture.split = entry["split"]
        else:
            picture.extra["source_split"] = entry["split"]  # what else it may mean is not ours to guess
    if isinstance(picture.extra.get("license"), int | str) and picture.extra["license"] in licenses:
        picture.extra["license"] = licenses[picture.extra["license"]]
    _only_json(picture.extra, where, found)
    return picture


def _thing(entry: dict[str, Any], names: dict[int, str], where: str, found: Source) -> Thing | None:
    category, bbox, crowd = entry.get("category_id"), entry.get("bbox"), entry.get("iscrowd", 0)
    if not isinstance(category, int) or category not in names:
        found.fault(
            FaultKind.UNKNOWN_CATEGORY, where, f"category_id {category!r} is not among the file's categories"
        )
        return None
    values = [number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(values) != 4 or None in values:
        found.fault(FaultKind.MALFORMED, where, f"bbox {bbox!r} is not a list of four numbers")
        return None
    if crowd not in (0, 1):
        found.fault(FaultKind.MALFORMED, where, f"iscrowd {crowd!r} is neither 0 nor 1")
        return None
    x, y, w, h = (float(value) for value in values if value is not None)
    extra = {key: value for key, value in entry.items() if key not in BOX_KEYS}
    if "area" in extra and extra["area"] == w * h:
        del extra["area"]  # says no more than the box does, and is written again on the way out
    return (
        Thing(names[category], (x, y, w, h), where, bool(crowd), extra)
        if _only_json(extra, where, found)
        else None
    )


def _only_json(extra: dict[str, Any], where: str, found: Source) -> bool:
    try:
        json.dumps(extra, allow_nan=False)
    except ValueError:
        found.fault(FaultKind.MALFORMED, where, "holds NaN or infinity, which JSON has no word for")
        return False
    return True


def write_coco(frames: Iterable[tuple[Frame, str]], taxonomy: Taxonomy, out: Path) -> None:
    """Write ``images/`` and, last, ``annotations.json``; each frame comes with its file name there, and must be labelled.

    Ids that all came with the frames and are whole and unique are written again, else images or annotations
    are numbered from 1.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    licenses: list[dict[str, Any]] = []
    owner: list[int] = []
    licensed: dict[int, int] = {}  # image -> licence, both by place
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
        words = {"bin_id": frame.bin_id, "burst": frame.burst, "annotator": labels.annotator}
        times = {"captured_at": frame.captured_at, "labelled_at": labels.labelled_at}
        image |= {key: value for key, value in words.items() if value is not None}
        image |= {key: value.isoformat() for key, value in times.items() if value is not None}
        if isinstance(image.get("license"), dict):
            if image["license"] not in licenses:
                licenses.append(image["license"])
            licensed[len(images)] = licenses.index(image["license"])
        for (x, y, w, h), class_id, crowd, extra in zip(
            labels.boxes.tolist(), labels.class_ids.tolist(), labels.crowd.tolist(), labels.extra, strict=True
        ):
            box = {"category_id": class_id, "bbox": [x, y, w, h], "iscrowd": int(crowd)}
            annotations.append({"area": w * h} | extra | box)
            owner.append(len(images))
        images.append(image)
    license_ids = _numbered(licenses)
    for place, license_ in licensed.items():
        images[place]["license"] = license_ids[license_]
    image_ids = _numbered(images)
    _numbered(annotations)
    for annotation, place in zip(annotations, owner, strict=True):
        annotation["image_id"] = image_ids[place]
    categories = [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in taxonomy.classes]
    document = {"info": {"description": "exported from a trashnet dataset log"}, "licenses": licenses}
    write_json(
        out / "annotations.json",
        document | {"images": images, "annotations": annotations, "categories": categories},
    )


def _numbered(entries: list[dict[str, Any]]) -> list[int]:
    """See to it that every entry has an ``id`` of its own; returns them."""
    ids = [entry.get("id") for entry in entries]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids) or len(set(ids)) < len(ids):
        ids = list(range(1, len(entries) + 1))
    for entry, identity in zip(entries, ids, strict=True):
        entry["id"] = identity
    return [int(i) for i in ids if i is not None]
