import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from dataset import Log, turns_of
from dataset.formats import ImportParams, import_dataset
from dataset.splits import SplitParams
from tests.dataset.sample_images import box_entry, drawn, encoded, jpeg, picture_entry, write_coco
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

PARAMS, SPLIT = ImportParams(), SplitParams()


def refused(folder: Path, kind: Any, log: Path, taxonomy: Taxonomy) -> str:
    """The message of an import that must fail and leave nothing behind."""
    before = turns_of(log) if log.exists() else []
    with pytest.raises(UserError) as caught:
        import_dataset(folder, kind, log, taxonomy, PARAMS, SPLIT)
    assert (turns_of(log) if log.exists() else []) == before
    assert not [path for path in log.rglob("*") if path.is_file()] or before
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels to speak of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


WHOLE = jpeg(drawn(1))
BROKEN_IMAGES = [
    ("truncated", WHOLE[: len(WHOLE) // 2], "truncated"),
    ("empty", b"", "is empty"),
    ("text", b"no image at all", "begins with b'no image at"),
    ("damaged png", encoded(drawn(1), "PNG")[:200], "not decode|truncated"),
    ("bomb", png_header(30_000, 30_000), "too large|pixels"),
    ("large", png_header(8_000, 8_000), "8000 x 8000"),
    ("one pixel", jpeg(drawn(1, 1, 1)), "1 x 1 pixels"),
    ("thin", jpeg(drawn(1, 400, 15)), "400 x 15 pixels"),
    ("animated", encoded(drawn(1), "WEBP", save_all=True, append_images=[drawn(2)]), "2 images"),
    ("float", encoded(drawn(1).convert("F"), "TIFF"), "no known range"),
]


@pytest.mark.parametrize(
    ("data", "match"), [case[1:] for case in BROKEN_IMAGES], ids=[case[0] for case in BROKEN_IMAGES]
)
def test_an_invalid_image_is_refused(
    data: bytes, match: str, tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad file is named with what is wrong and decoded within limits, whatever Pillow was told before."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)]
    folder = write_coco(tmp_path / "set", images, [])
    (folder / "images" / "1.jpg").write_bytes(data)
    message = refused(folder, "coco", tmp_path / "data", taxonomy)
    assert "1.jpg: " in message
    assert any(word in message for word in match.split("|")), message
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT, skip_invalid=True)
    assert (report.frames, len(report.left_out)) == (1, 1)
    assert "1.jpg" in report.summary()


def test_a_huge_header_is_refused_before_decoding(
    tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the header announces is judged before any pixel is decoded."""
    folder = write_coco(tmp_path / "set", [{"id": 1, "file_name": "1.jpg"}], [])
    (folder / "images" / "1.jpg").write_bytes(png_header(8_000, 8_000))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "images that are too large" in refused(folder, "coco", tmp_path / "data", taxonomy)


def write_faulty_coco(folder: Path) -> None:
    """A COCO folder with two valid images, one valid box, and faults of every kind."""
    images = [
        picture_entry(1),
        picture_entry(2, width=640),
        picture_entry(3),
        picture_entry(4),
        picture_entry(4, file_name="4b.jpg"),
        picture_entry(5, captured_at="yesterday"),
        picture_entry(6, file_name="../../etc/passwd.jpg"),
    ]
    boxes: list[tuple[list[Any], int]] = [
        ([1, 2, 3, 4], 90),  # valid
        ([60, 2, 30, 4], 90),
        ([1, 2, -3, 4], 90),
        ([1, 2, 0, 4], 90),
        ([math.nan, 2, 3, 4], 90),
        ([1, 2, math.inf, 4], 90),
        (["1", 2, 3, 4], 90),
        ([1, 2, 3], 90),
        ([1, 2, 3, 4], 18),
        ([1, 2, 3, 4], 55),
        ([64.5, 2, 0.4, 4], 90),
    ]
    annotations = [box_entry(n, 1, box, category) for n, (box, category) in enumerate(boxes)]
    annotations += [
        box_entry(50, 99, [1, 2, 3, 4]),
        box_entry(0, 1, [5, 5, 5, 5]),
        box_entry(60, 4, [1, 2, 3, 4]),
    ]
    categories = [{"id": 90, "name": "Drink can"}, {"id": 18, "name": "Drinkcan"}]
    write_coco(folder, [entry for entry in images if entry["id"] != 6], annotations, categories)
    document = json.loads((folder / "annotations.json").read_text())
    (folder / "annotations.json").write_text(json.dumps(document | {"images": images}))
    (folder / "images" / "3.jpg").unlink()
    (folder / "images" / "2.jpg").write_bytes(jpeg(drawn(2)))


def test_all_faults_are_reported_at_once(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """One message lists every fault by kind, with file and annotation names; skipping imports the rest."""
    folder = tmp_path / "set"
    write_faulty_coco(folder)
    message = refused(folder, "coco", tmp_path / "data", taxonomy)
    for part in (
        "1 boxes that reach outside their image",
        "annotation 1 (1.jpg)",
        "3 boxes without area",
        "2 boxes with a coordinate that is not a finite number",
        "annotations that lack something or hold the wrong type",
        "1 annotations of images that are not listed",
        "image_id 99",
        "'Drinkcan': 1 boxes, the first at annotations.json: annotation 8 (1.jpg); did you mean 'Drink can'?",
        "category_id 55 is not among",
        "1 files that are missing",
        "3.jpg",
        "declared 640 x 48, the file is",
        "this id occurs 2 times",
        "annotation id 0 occurs before",
        "captured_at",
        "leads out of the data set",
    ):
        assert part in message
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT, skip_invalid=True)
    log = Log(tmp_path / "data", taxonomy)
    assert sorted(f.file_name for f in log.frames()) == ["1.jpg", "5.jpg"]
    labels = next(f.labels for f in log.frames() if f.file_name == "1.jpg")
    assert labels is not None
    assert labels.boxes.tolist() == [[1, 2, 3, 4]]
    assert len(report.left_out) > 14


def test_a_long_list_is_cut(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Of 50 faults of one kind 20 are named, and the count is told."""
    folder = write_coco(
        tmp_path / "set", [picture_entry(1)], [box_entry(n, 1, [1, 2, 0, 4]) for n in range(50)]
    )
    message = refused(folder, "coco", tmp_path / "data", taxonomy)
    assert "50 boxes without area" in message
    assert message.count("Drink can [") == 20
    assert "... and 30 more" in message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": []}', "\xff\xfe", "[" * 100_000])
def test_what_is_no_coco_file_is_said(text: str, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Broken JSON and JSON that is something else are refused by name."""
    (tmp_path / "annotations.json").write_text(text, encoding="latin-1")
    message = refused(tmp_path, "coco", tmp_path / "data", taxonomy)
    assert "annotation files that cannot be read" in message
    assert "annotations.json" in message


def test_sources_that_are_not_there(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A missing folder, a folder of something else and an unknown format say what was looked for."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind, source, match in (
        ("coco", tmp_path / "none", "no such file or folder"),
        ("coco", empty, "no annotations.json"),
        ("voc", tmp_path / "none", "not a folder"),
        ("voc", empty, "no \\*.xml"),
        ("yolo", empty, "no data.yaml"),
        ("csv", empty, "none of coco, voc, yolo"),
    ):
        with pytest.raises(UserError, match=match):
            import_dataset(source, kind, tmp_path / "data", taxonomy, PARAMS, SPLIT)  # type: ignore[arg-type]
    write_coco(empty, [], [])
    assert "has no images" in refused(empty, "coco", tmp_path / "data", taxonomy)


def test_bad_voc(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Broken XML, missing parts, bad numbers, reversed corners and sizes, and missing files are all named."""
    root = tmp_path / "set"
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)

    def write(name: str, objects: str, size: str = "<width>64</width><height>48</height>") -> None:
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(drawn(ord(name))))
        text = f"<annotation><filename>{name}.jpg</filename><size>{size}</size>{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)

    def thing(corners: tuple[Any, ...], name: str = "Shoe") -> str:
        box = "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
        )
        return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"

    write("a", thing((1, 1, 10, 10)))
    write(
        "b",
        thing((20, 1, 10, 10))
        + thing((1, "two", 3, 4))
        + thing((1, 1, "nan", 9))
        + thing((1, 1, 3))
        + thing((1, 1, 99, 9)),
    )
    write("c", thing((1, 1, 10, 10), "Spaceship"))
    write("d", "", "<width>48</width><height>64</height>")
    write("e", "<object><name>Shoe</name></object>")
    write("f", "", "<width>0</width><height>0</height>")
    (root / "Annotations" / "g.xml").write_text("<annotation><filename>g.jpg</filename></annotation>")
    (root / "Annotations" / "h.xml").write_text("<annotation>")
    (root / "JPEGImages" / "i.jpg").write_bytes(jpeg(drawn(105)))
    message = refused(root, "voc", tmp_path / "data", taxonomy)
    for part in (
        "h.xml: not XML",
        "b.xml: object 1 (Shoe)",
        "b.xml: object 2: Shoe: <bndbox> needs a number",
        "b.xml: object 3 (Shoe)",
        "b.xml: object 4: Shoe: <bndbox> needs a number",
        "b.xml: object 5 (Shoe)",
        "'Spaceship': 1 boxes",
        "declared 48 x 64, the file is 64 x 48",
        "e.xml: object 1: lacks",
        "no such file",
        "i.jpg: has no XML file",
    ):
        assert part in message
    report = import_dataset(root, "voc", tmp_path / "data", taxonomy, PARAMS, SPLIT, skip_invalid=True)
    assert (report.frames, report.boxes) == (5, 1)  # a, b, c, e, f


def test_an_exploding_xml_is_only_broken(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Entities that grow to gigabytes are refused by the parser, as broken XML."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "a.xml").write_text(
        f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><annotation><folder>&e11;</folder></annotation>'
    )
    assert "not XML" in refused(tmp_path, "voc", tmp_path / "data", taxonomy)


def test_bad_yolo(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Bad lines, unknown class numbers, boxes outside, orphans and images in two lists are all named."""
    root = tmp_path / "set"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    lines = [
        "0 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0.5",
        "x 1 1 1 1",
        "7 0.5 0.5 0.5 0.5",
        "0 0.9 0.5 0.5 0.5",
        "0 nan 0.5 0.1 0.1",
        "0 .5 .5 0 .1",
    ]
    (root / "images" / "a.jpg").write_bytes(jpeg(drawn(1)))
    (root / "labels" / "a.txt").write_text("\n".join([*lines, "0 .1 .1 .2 .2 .3 .3 .4"]))
    (root / "labels" / "b.txt").write_text("")
    (root / "labels" / "classes.txt").write_text("Shoe")
    (root / "data.yaml").write_text("train: images\nval: images\ntest: missing\nnames: [Shoe]\n")
    message = refused(root, "yolo", tmp_path / "data", taxonomy)
    for part in (
        "line 2: 4 numbers",
        "line 3: 'x 1 1 1 1' is not numbers",
        "line 4: class number 7",
        "line 5",
        "line 6",
        "line 7",
        "line 8: 8 numbers",
        "labels/b.txt: labels an image that no list names",
        "data.yaml: val: images/a.jpg is in 'train' as well",
        "missing is neither a folder nor a list",
    ):
        assert part in message
    for text, match in (
        ("train: images\n", "`names` must be"),
        ("train: images\nnames: [Shoe]\nnc: 2\n", "`nc` is 2"),
        ("names: [Shoe]\n", "name no image"),
        ("- a", "not a YOLO data set"),
        ("a: [", "not YAML"),
    ):
        (root / "data.yaml").write_text(text)
        assert match in refused(root, "yolo", tmp_path / "data", taxonomy)


def test_a_failed_import_leaves_the_log_as_it_was(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """After a refused import the log has the same turns and bytes, and the corrected set is imported."""
    log = tmp_path / "data"
    import_dataset(write_coco(tmp_path / "one", [picture_entry(1)], []), "coco", log, taxonomy, PARAMS, SPLIT)
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    bad = write_coco(tmp_path / "two", [picture_entry(2)], [box_entry(1, 2, [1, 2, 0, 4])])
    refused(bad, "coco", log, taxonomy)
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before
    write_coco(bad, [picture_entry(2)], [box_entry(1, 2, [1, 2, 3, 4])])
    assert import_dataset(bad, "coco", log, taxonomy, PARAMS, SPLIT).frames == 1


def test_limits_are_parameters(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The smallest side and the most pixels come from params.yaml."""
    folder = write_coco(tmp_path / "set", [picture_entry(1)], [])
    for params, match in (
        (ImportParams(min_side=49), "shorter side needs 49"),
        (ImportParams(max_pixels=3071), "64 x 48 pixels; at most 3,071"),
    ):
        with pytest.raises(UserError, match=match):
            import_dataset(folder, "coco", tmp_path / "data", taxonomy, params, SPLIT)
    assert Image.MAX_IMAGE_PIXELS is not None
