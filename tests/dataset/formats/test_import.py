import io
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset import Log
from dataset.formats import ImportParams, import_dataset, load_mapping
from dataset.formats.image_validation import normalise
from dataset.splits import SplitParams
from tests.dataset.sample_images import box_entry, drawn, encoded, jpeg, picture_entry, write_coco
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

PARAMS, SPLIT = ImportParams(), SplitParams()


def test_a_coco_set_enters_as_one_turn(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Ids with holes, another case of a name, a background, a crowd and unknown keys all arrive."""
    images = [
        picture_entry(
            7, license=4, bin_id="b1", burst=3, captured_at="2026-05-01T12:00:00+02:00", weather="rain"
        ),
        picture_entry(2, group="kitchen"),
        picture_entry(3),
    ]
    crowd = {"counts": [0, 4], "size": [48, 64]}
    annotations = [
        box_entry(5, 7, [1.5, 2.25, 10, 20.125], 3, area=99.5, attributes={"wet": True}),
        box_entry(9, 2, [0, 0, 64, 48], 90, iscrowd=1, segmentation=crowd),
    ]
    folder = write_coco(tmp_path / "set", images, annotations, licenses=[{"id": 4, "name": "CC BY 4.0"}])
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assert (report.frames, report.boxes, report.backgrounds, report.left_out) == (3, 2, 1, [])
    assert report.turn is not None
    assert report.turn.startswith("00001-set-")
    by_name = {f.file_name: f for f in Log(tmp_path / "data", taxonomy).frames()}
    seven, two, three = by_name["7.jpg"], by_name["2.jpg"], by_name["3.jpg"]
    assert bytes(seven.jpeg) == (folder / "images" / "7.jpg").read_bytes()
    assert seven.labels is not None
    assert seven.labels.boxes.tolist() == [[1.5, 2.25, 10, 20.125]]
    assert seven.labels.class_ids.tolist() == [taxonomy.id_of["Glass bottle"]]
    assert seven.labels.extra == ({"area": 99.5, "attributes": {"wet": True}, "id": 5},)
    assert (seven.bin_id, seven.burst) == ("b1", "3")
    assert seven.captured_at is not None
    assert seven.captured_at.isoformat() == "2026-05-01T10:00:00+00:00"
    assert seven.extra == {"id": 7, "license": {"id": 4, "name": "CC BY 4.0"}, "weather": "rain"}
    assert two.group == "kitchen"
    assert two.labels is not None
    assert two.labels.crowd.tolist() == [True]
    assert two.labels.extra[0]["segmentation"] == crowd
    assert three.labels is not None
    assert len(three.labels) == 0


def test_importing_twice_changes_nothing_and_a_correction_is_one(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The same set again appends no turn; with one box moved it appends labels only, and the split stays."""
    images = [picture_entry(n) for n in range(1, 6)]
    annotations = [box_entry(n, n, [1, 2, 30, 40]) for n in range(1, 6)]
    folder = write_coco(tmp_path / "set", images, annotations)
    import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    splits = Log(tmp_path / "data", taxonomy).splits.tolist()
    again = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assert (again.turn, again.frames, again.known, again.relabelled) == (None, 0, 5, 0)
    assert "nothing new" in again.summary()
    write_coco(folder, images, [box_entry(1, 1, [1, 2, 31, 40]), *annotations[1:]])
    corrected = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT, name="second_look")
    assert (corrected.frames, corrected.relabelled) == (0, 1)
    log = Log(tmp_path / "data", taxonomy)
    assert log.splits.tolist() == splits
    widths = {f.file_name: f.labels.boxes[0, 2] for f in log.frames() if f.labels is not None}
    assert widths == {"1.jpg": 31, "2.jpg": 30, "3.jpg": 30, "4.jpg": 30, "5.jpg": 30}


def test_a_mapping_renames_and_drops(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The mapping comes before names; null drops boxes and keeps the image; unknown targets are refused."""
    categories = [{"id": 1, "name": "Soda"}, {"id": 2, "name": "face"}, {"id": 3, "name": "cigarette"}]
    annotations = [box_entry(n, n, [1, 2, 30, 40], n) for n in (1, 2, 3)]
    folder = write_coco(tmp_path / "set", [picture_entry(n) for n in (1, 2, 3)], annotations, categories)
    mapping = {"soda": "drink CAN", "face": None, "Bin": "Shoe"}
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT, mapping=mapping)
    assert (report.dropped, report.unused, report.boxes, report.backgrounds) == ({"face": 1}, ["Bin"], 2, 1)
    counts = Log(tmp_path / "data", taxonomy).box_counts()
    assert {taxonomy.names[i]: int(n) for i, n in enumerate(counts) if n} == {"Drink can": 1, "Cigarette": 1}
    with pytest.raises(UserError, match="'Can of worms'"):
        import_dataset(
            folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT, mapping={"Soda": "Can of worms"}
        )


def test_mapping_files(tmp_path: Path) -> None:
    """YAML, JSON and CSV say the same; anything else is refused with the form that is wanted."""
    expected = {"Soda": "Drink can", "face": None}
    for name, text in (
        ("m.yaml", "Soda: Drink can\nface: null\n"),
        ("m.json", '{"Soda": "Drink can", "face": null}'),
        ("m.csv", "theirs,ours\nSoda,Drink can\nface,\n"),
    ):
        (tmp_path / name).write_text(text)
        assert load_mapping(tmp_path / name) == expected
    for name, text in (("a.yaml", "- Soda"), ("b.json", "{"), ("c.csv", "Soda\n"), ("d.yaml", "Soda: 3")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            load_mapping(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        load_mapping(tmp_path / "none.yaml")


def mean_error(data: bytes, expected: Image.Image) -> float:
    """Mean difference in grey levels between an encoded image, decoded by OpenCV, and what it should show."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return float(np.abs(pixels.astype(float) - np.asarray(expected.convert("RGB"), float)).mean())


GREY16 = Image.fromarray(np.asarray(drawn(3).convert("L")).astype(np.uint16) * 257)
ALPHA = Image.merge("RGBA", [*drawn(4).split(), Image.new("L", (64, 48), 0)])
CASES = [
    ("cmyk", encoded(drawn(1).convert("CMYK"), "JPEG", quality=95), drawn(1)),
    ("16 bit", encoded(GREY16, "PNG"), drawn(3).convert("L")),
    ("png", encoded(drawn(2), "PNG"), drawn(2)),
    ("grey png", encoded(drawn(2).convert("L"), "PNG"), drawn(2).convert("L")),
    ("palette", encoded(drawn(2).quantize(256), "PNG"), drawn(2).quantize(256).convert("RGB")),
    ("alpha", encoded(ALPHA, "PNG"), Image.new("RGB", (64, 48), "white")),
    ("webp", encoded(drawn(5), "WEBP", quality=100), drawn(5)),
    ("bmp", encoded(drawn(5), "BMP"), drawn(5)),
]


@pytest.mark.parametrize(("data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_not_a_plain_jpeg_becomes_one(data: bytes, expected: Image.Image) -> None:
    """A JPEG is stored whatever the format; it looks the same to OpenCV, and equal bytes give equal JPEGs."""
    stored, image, converted = normalise(data, None, 16, 10**6)
    with Image.open(io.BytesIO(stored)) as again:
        assert again.format == "JPEG"
        assert again.mode == image.mode
        assert again.mode in ("RGB", "L")
        assert not again.getexif()
    assert converted
    assert mean_error(stored, expected) < 4
    assert normalise(data, None, 16, 10**6)[0] == stored


@pytest.mark.parametrize("image", [drawn(1), drawn(1).convert("L")], ids=["rgb", "grey"])
def test_plain_jpegs_keep_their_bytes(image: Image.Image) -> None:
    """RGB and grey JPEGs, progressive ones and those whose EXIF says upright, are stored as they are."""
    exif = Image.Exif()
    exif[0x0112] = 1
    for data in (jpeg(image), jpeg(image, progressive=True), jpeg(image, exif=exif)):
        stored, _, converted = normalise(data, image.size, 16, 10**6)
        assert stored == data
        assert converted is None


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation(orientation: int) -> None:
    """The declared size decides: stored pixels stay and lose the EXIF tag, or they are rotated upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(drawn(6), exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        displayed = ImageOps.exif_transpose(opened)
    for declared in (None, displayed.size):
        stored, image, _ = normalise(data, declared, 16, 10**6)
        assert image.size == displayed.size
        assert mean_error(stored, displayed) < 4
    if orientation >= 5:
        stored, image, converted = normalise(data, (64, 48), 16, 10**6)
        assert converted == "EXIF rotation dropped, pixels kept"
        assert image.size == (64, 48)
        with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stored)) as after:
            assert 0x0112 not in after.getexif()
            assert np.array_equal(np.asarray(before), np.asarray(after))
            assert cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)


def test_converted_images_enter_under_what_they_became(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A PNG named .jpg is recognised by content, reported, decoded, and known the next time."""
    folder = write_coco(
        tmp_path / "set", [picture_entry(1), picture_entry(2)], [box_entry(1, 1, [1, 2, 3, 4])]
    )
    (folder / "images" / "1.jpg").write_bytes(encoded(drawn(1), "PNG"))
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assert report.converted == {"PNG RGB to JPEG RGB": 1}
    assert "PNG RGB to JPEG RGB: 1 images" in report.summary()
    assert all(f.image().shape == (48, 64, 3) for f in Log(tmp_path / "data", taxonomy).frames())
    assert import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT).turn is None


def test_boxes_are_clipped_by_a_pixel_at_most(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Up to one pixel outside is clipped; by hand: (-0.5, -1, 10, 10) becomes (0, 0, 9.5, 9)."""
    boxes = [[-0.5, -1, 10, 10], [60, 40, 5, 9], [0, 0, 64, 48]]
    folder = write_coco(
        tmp_path / "set", [picture_entry(1)], [box_entry(n, 1, box) for n, box in enumerate(boxes)]
    )
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    labels = Log(tmp_path / "data", taxonomy).labels(0)
    assert labels is not None
    assert labels.boxes.tolist() == [[0, 0, 9.5, 9], [60, 40, 4, 8], [0, 0, 64, 48]]
    assert report.clipped == 2


def test_groups_and_splits_across_imports(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A smaller copy of a frame in the log joins its group and split; so do later frames of its burst."""
    entries = [picture_entry(n, bin_id="b", burst=str(n)) for n in range(1, 11)]
    folder = write_coco(tmp_path / "set", entries, [box_entry(n, n, [1, 2, 30, 40]) for n in range(1, 11)])
    import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    copies = [picture_entry(20 + n, width=128, height=96) for n in range(1, 11)]
    later = [picture_entry(40 + n, bin_id="b", burst=str(n)) for n in range(1, 11)]
    second = write_coco(tmp_path / "second", [*copies, *later], [])
    for n in range(1, 11):
        (second / "images" / f"{20 + n}.jpg").write_bytes(jpeg(drawn(n).resize((128, 96))))
    shutil.copy(second / "images" / "21.jpg", second / "images" / "twin.jpg")
    import_dataset(second, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assigned = {f.file_name: (f.group, f.split) for f in Log(tmp_path / "data", taxonomy).frames()}
    assert len({group for group, _ in assigned.values()}) == 10
    for n in range(1, 11):
        assert assigned[f"{n}.jpg"] == assigned[f"{20 + n}.jpg"] == assigned[f"{40 + n}.jpg"]


def test_a_splits_word_is_heeded(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """COCO's `split` key decides for a new group; another word is kept as source_split."""
    images = [
        picture_entry(1, split="test"),
        picture_entry(2, split="val"),
        picture_entry(3, split="train2017"),
    ]
    import_dataset(
        write_coco(tmp_path / "set", images, []), "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT
    )
    found = {f.file_name: f for f in Log(tmp_path / "data", taxonomy).frames()}
    assert (found["1.jpg"].split, found["2.jpg"].split) == ("test", "val")
    assert found["3.jpg"].extra["source_split"] == "train2017"


def test_progress_and_many_processes(
    tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is reported per image, and a pool of processes gives the same result as one process."""
    folder = write_coco(tmp_path / "set", [picture_entry(n) for n in range(1, 13)], [])
    (folder / "images" / "3.jpg").write_bytes(encoded(drawn(3), "PNG"))
    reported: list[tuple[int, int]] = []
    import_dataset(
        folder,
        "coco",
        tmp_path / "one",
        taxonomy,
        PARAMS,
        SPLIT,
        on_progress=lambda done, total: reported.append((done, total)),
    )
    assert reported == [(n, 12) for n in range(1, 13)]
    monkeypatch.setattr("dataset.formats.image_validation.MIN_BYTES_FOR_PROCESSES", 0)
    import_dataset(folder, "coco", tmp_path / "pool", taxonomy, PARAMS, SPLIT)
    one, pool = Log(tmp_path / "one", taxonomy), Log(tmp_path / "pool", taxonomy)
    assert one.turns == pool.turns
    assert [(f.sha256, f.split) for f in one.frames()] == [(f.sha256, f.split) for f in pool.frames()]


def test_where_coco_keeps_its_files(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The official layout, Roboflow's file per split and a file named directly are found; else name one."""
    made = write_coco(tmp_path / "made", [picture_entry(1)], [box_entry(1, 1, [1, 2, 3, 4])])
    text, picture = (made / "annotations.json").read_text(), made / "images" / "1.jpg"
    official, roboflow = tmp_path / "official", tmp_path / "roboflow"
    for path in (
        official / "annotations",
        official / "val2017",
        *(roboflow / word for word in ("train", "valid", "test")),
    ):
        path.mkdir(parents=True)
    (official / "annotations" / "instances_val2017.json").write_text(text)
    shutil.copy(picture, official / "val2017")
    assert import_dataset(official, "coco", tmp_path / "a", taxonomy, PARAMS, SPLIT).frames == 1
    for number, word in enumerate(("train", "valid", "test")):
        (roboflow / word / "_annotations.coco.json").write_text(text)
        (roboflow / word / "1.jpg").write_bytes(jpeg(drawn(number)))
    assert import_dataset(roboflow, "coco", tmp_path / "b", taxonomy, PARAMS, SPLIT).splits == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
    assert (
        import_dataset(made / "annotations.json", "coco", tmp_path / "c", taxonomy, PARAMS, SPLIT).frames == 1
    )
    (made / "annotations.json").rename(made / "one.json")
    (made / "two.json").write_text(text)
    with pytest.raises(UserError, match="name the COCO annotation file"):
        import_dataset(made, "coco", tmp_path / "d", taxonomy, PARAMS, SPLIT)


def test_yolo_lists_polygons_and_foreign_paths(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Text lists, ../ paths, a foreign `path`, names as a map, polygons and confidences are read."""
    root = tmp_path / "set"
    for split in ("train", "valid", "test"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "valid", "test")):
        (root / split / "images" / f"{number}.jpg").write_bytes(jpeg(drawn(number)))
    (root / "train" / "labels" / "0.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.25 0.25 0.75 0.25 0.5 0.5\n")
    (root / "valid" / "labels" / "1.txt").write_text("0 0.5 0.5 1 1 0.875\n")
    (root / "list.txt").write_text("./test/images/2.jpg\n")
    (root / "data.yaml").write_text(
        "path: /nowhere/on/this/machine\ntrain: ../train/images\nval: [../valid/images]\ntest: list.txt\n"
        "names: {0: Shoe, 1: Cigarette}\nnc: 2\n"
    )
    report = import_dataset(root, "yolo", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assert report.splits == {"train": 1, "val": 1, "test": 1}
    found = {f.split: f for f in Log(tmp_path / "data", taxonomy).frames()}
    train, val, test = (found[split].labels for split in ("train", "val", "test"))
    assert train is not None
    assert val is not None
    assert test is not None
    # 64 x 48: centre (32, 24), size 16 x 24; the triangle spans x 16..48, y 12..24
    assert train.boxes.tolist() == [[24, 12, 16, 24], [16, 12, 32, 12]]
    assert train.class_ids.tolist() == [taxonomy.id_of["Cigarette"], taxonomy.id_of["Shoe"]]
    assert train.extra[1] == {"segmentation": [[16, 12, 48, 12, 32, 24]]}
    assert val.extra == ({"confidence": 0.875},)
    assert len(test) == 0


def test_voc_counts_from_one(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """xmin 1, xmax 64 spans 64 pixels; difficult, pose and nested parts stay; flat folders are found."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg(drawn(1)))
    box = "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>64</xmax><ymax>20</ymax></bndbox>"
    (root / "a.xml").write_text(
        "<annotation><folder>x</folder><filename>a.jpg</filename>"
        "<size><width>64</width><height>48</height><depth>3</depth></size>"
        f"<object><name>shoe</name><pose>Left</pose><difficult>1</difficult>{box}"
        "<part><name>lace</name></part></object></annotation>"
    )
    import_dataset(root, "voc", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    one = Log(tmp_path / "data", taxonomy).frame(0)
    assert one.labels is not None
    assert one.labels.boxes.tolist() == [[0, 10, 64, 10]]
    assert one.labels.extra == (
        {"pose": "Left", "difficult": 1, "voc_xml": ["<part><name>lace</name></part>"]},
    )
    assert one.extra == {"folder": "x"}


def test_the_same_bytes_twice(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """An image under two names enters once if both say the same, and is a contradiction if they do not."""
    images = [picture_entry(1), picture_entry(2)]
    folder = write_coco(tmp_path / "set", images, [box_entry(n, n, [1, 2, 3, 4]) for n in (1, 2)])
    shutil.copy(folder / "images" / "1.jpg", folder / "images" / "2.jpg")
    report = import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    assert (report.frames, report.repeated) == (1, 1)
    document: Any = json.loads((folder / "annotations.json").read_text())
    document["annotations"].pop()
    (folder / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"(?s)occur twice in the set.*byte for byte 1\.jpg"):
        import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
