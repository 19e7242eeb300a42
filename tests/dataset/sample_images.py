"""Pictures and small data sets drawn for the tests of importing and exporting."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def drawn(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A picture like no other: coarse random blocks, so that perceptual hashes of two seeds are far apart."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """The picture as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture in another format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_coco(
    folder: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Path:
    """A COCO folder; missing images are drawn by id, category ids have holes and are out of order."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for entry in images:
        path = folder / "images" / entry["file_name"]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(drawn(entry["id"], entry.get("width", 64), entry.get("height", 48))))
    document = {
        "images": images,
        "annotations": annotations,
        "categories": categories
        or [
            {"id": 90, "name": "Drink can"},
            {"id": 3, "name": "glass bottle"},
            {"id": 17, "name": "Cigarette"},
            {"id": 18, "name": "Shoe"},
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(document | more))
    return folder


def picture_entry(number: int, **more: Any) -> dict[str, Any]:
    """A COCO image entry."""
    return {"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48} | more


def box_entry(number: int, image: int, bbox: list[Any], category: int = 90, **more: Any) -> dict[str, Any]:
    """A COCO annotation entry."""
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0} | more
