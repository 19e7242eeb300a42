import hashlib
import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from dataset import SPLITS, Frame, Labels, Log, append_turn
from dataset.formats import ImportParams, export_dataset, import_dataset
from dataset.formats.coco import read_coco
from dataset.formats.voc import _box, _corners
from dataset.splits import SplitParams
from tests.dataset.sample_images import box_entry, drawn, jpeg, picture_entry, write_coco
from tests.dataset.test_log import frame
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

PARAMS, SPLIT = ImportParams(), SplitParams()
JPEGS = {n: jpeg(drawn(n)) for n in range(4)}
WIDTH, HEIGHT = 64, 48


@st.composite
def boxes(draw: Any) -> list[float]:
    """A box inside 64 x 48, often touching its border."""
    x = draw(st.one_of(st.integers(0, 60), st.floats(0, 60)))
    y = draw(st.one_of(st.integers(0, 40), st.floats(0, 40)))
    w = draw(st.one_of(st.floats(0.01, 64), st.just(WIDTH - x)))
    h = draw(st.one_of(st.floats(0.01, 48), st.just(HEIGHT - y)))
    return [x, y, min(w, WIDTH - x), min(h, HEIGHT - y)]


EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "area": st.floats(0.1, 1e4),
        "segmentation": st.lists(st.lists(st.floats(0, 60), min_size=6, max_size=6), min_size=1, max_size=2),
        "attributes": st.dictionaries(
            st.text(max_size=5), st.one_of(st.booleans(), st.text(max_size=5)), max_size=2
        ),
        "pose": st.sampled_from(["Left", " padded ", "<b>&", "", "Ünï", "\x0b"]),
        "difficult": st.sampled_from([0, 1, True, "1"]),
        "odd key!": st.integers(),
    },
)
THINGS = st.lists(st.tuples(boxes(), st.integers(1, 57), st.booleans(), EXTRAS), max_size=3)
SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def log_of(root: Path, frames: list[Any], taxonomy: Taxonomy) -> Log:
    """A log with one labelled frame per list of boxes."""
    new_frames, new_labels = [], []
    for number, boxes in enumerate(frames):
        template = frame(
            number,
            group=f"g{number % 3}",
            bin_id="b" if number else None,
            extra={"weather": "rain", "id": number + 5},
        )
        labels = Labels(
            np.array([box[0] for box in boxes], float).reshape(-1, 4),
            np.array([box[1] for box in boxes], np.int64),
            np.array([box[2] for box in boxes], bool),
            tuple(box[3] for box in boxes),
            annotator="ann",
        )
        sha = hashlib.sha256(JPEGS[number]).hexdigest()
        new_frames.append(
            replace(
                template,
                sha256=sha,
                jpeg=JPEGS[number],
                width=WIDTH,
                height=HEIGHT,
                phash=0,
                file_name=f"batch {number}/é{number}.jpg",
                labels=None,
                burst=str(number % 3),
                captured_at=None,
            )
        )
        new_labels.append((sha, labels))
    append_turn(root, "made", new_frames, new_labels, taxonomy)
    return Log(root, taxonomy)


def round_trip(frames: list[Any], kind: Any, taxonomy: Taxonomy, folder: Path) -> list[tuple[Frame, Frame]]:
    """Out in a format and back into an empty log: every frame with what became of it."""
    log = log_of(folder / "data", frames, taxonomy)
    export_dataset(log, kind, folder / "out")
    report = import_dataset(folder / "out", kind, folder / "back", taxonomy, PARAMS, SPLIT)
    assert report.clipped == 0
    back = {f.sha256: f for f in Log(folder / "back", taxonomy).frames()}
    assert len(back) == len(frames)
    return [(f, back[f.sha256]) for f in log.frames()]


FRAMES = st.lists(THINGS, min_size=1, max_size=4)


@SETTINGS
@given(frames=FRAMES)
def test_coco_loses_nothing(frames: list[Any], taxonomy: Taxonomy) -> None:
    """Boxes (every bit), extras, names, groups and splits survive; importing the export adds nothing."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for before, after in round_trip(frames, "coco", taxonomy, folder):
            assert before.labels is not None
            assert after.labels is not None
            assert before.labels.boxes.tobytes() == after.labels.boxes.tobytes()
            assert before.labels.class_ids.tolist() == after.labels.class_ids.tolist()
            assert before.labels.crowd.tolist() == after.labels.crowd.tolist()
            for one, other in zip(before.labels.extra, after.labels.extra, strict=True):
                assert {k: v for k, v in other.items() if k != "id"} == one
            for word in ("file_name", "group", "split", "bin_id", "burst", "extra"):
                assert getattr(before, word) == getattr(after, word)
            assert before.labels.annotator == after.labels.annotator
        if not any(
            "area" in extra and extra["area"] == w * h
            for things in frames
            for (_, _, w, h), _, _, extra in things
        ):
            assert (
                import_dataset(folder / "out", "coco", folder / "data", taxonomy, PARAMS, SPLIT).turn is None
            )


@SETTINGS
@given(frames=FRAMES)
def test_voc_loses_nothing_of_boxes(frames: list[Any], taxonomy: Taxonomy) -> None:
    """Every bit of every box, classes, crowds and a box's extras survive VOC; file names too."""
    with TemporaryDirectory() as name:
        for before, after in round_trip(frames, "voc", taxonomy, Path(name)):
            assert before.labels is not None
            assert after.labels is not None
            assert before.labels.boxes.tobytes() == after.labels.boxes.tobytes()
            assert before.labels.class_ids.tolist() == after.labels.class_ids.tolist()
            assert before.labels.crowd.tolist() == after.labels.crowd.tolist()
            assert [json.dumps(e, sort_keys=True) for e in before.labels.extra] == [
                json.dumps(e, sort_keys=True) for e in after.labels.extra
            ]
            assert before.file_name == after.file_name
            assert after.extra["weather"] == "rain"


@SETTINGS
@given(frames=FRAMES)
def test_yolo_loses_no_box(frames: list[Any], taxonomy: Taxonomy) -> None:
    """Boxes come back within 1e-6 pixels; crowds are left out, as documented."""
    with TemporaryDirectory() as name:
        for before, after in round_trip(frames, "yolo", taxonomy, Path(name)):
            assert before.labels is not None
            assert after.labels is not None
            alone = ~before.labels.crowd
            assert np.allclose(before.labels.boxes[alone], after.labels.boxes, rtol=0, atol=1e-6)
            assert before.labels.class_ids[alone].tolist() == after.labels.class_ids.tolist()
            assert before.file_name == after.file_name


@given(box=st.tuples(*[st.floats(0, 1e4)] * 2, *[st.floats(1e-9, 1e4)] * 2))
def test_voc_coordinates_are_exact(box: tuple[float, float, float, float]) -> None:
    """Whatever the fraction, corner texts give back the box to the last bit."""
    assert _box([Decimal(text) for text in _corners(list(box))]) == box


def test_voc_corners_by_hand() -> None:
    """x 0, w 64 is xmin 1, xmax 64; x 0.1, w 0.2 is xmin 1.1, xmax 0.3, without float noise."""
    assert _corners([0.0, 10.0, 64.0, 10.0]) == ["1", "11", "64", "20"]
    assert _corners([0.1, 0.5, 0.2, 100.0]) == ["1.1", "1.5", "0.3", "100.5"]
    assert all(math.isnan(v) for v in _box([Decimal("nan")] * 4))


def test_a_foreign_coco_file_comes_out_as_it_went_in(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Every key of every image and annotation is exported, ids and licences too, and pycocotools reads it."""
    images = [
        picture_entry(n, license=4 if n == 10 else 9, date_captured="2020", split=SPLITS[n % 3])
        for n in (30, 10, 20)
    ]
    annotations = [
        box_entry(
            100 + n,
            n,
            [1.1, 2.2, 3.3, 4.4],
            3,
            area=14.0,
            segmentation=[[1, 2, 3, 4, 5, 6]],
            attributes={"a": 1},
        )
        for n in (10, 30)
    ]
    annotations.append(
        box_entry(
            7, 10, [0, 0, 5, 5], 17, iscrowd=1, segmentation={"counts": [0, 25], "size": [48, 64]}, area=25
        )
    )
    licenses = [{"id": 9, "name": "nine"}, {"id": 4, "name": "four", "url": "x"}]
    folder = write_coco(tmp_path / "set", images, annotations, licenses=licenses)
    import_dataset(folder, "coco", tmp_path / "data", taxonomy, PARAMS, SPLIT)
    export_dataset(Log(tmp_path / "data", taxonomy), "coco", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    by_id = {image["id"]: image for image in written["images"]}
    assert all(by_id[image["id"]].items() >= image.items() for image in images)
    names = {category["id"]: category["name"].lower() for category in written["categories"]}
    out = {annotation["id"]: annotation for annotation in written["annotations"]}
    for annotation in annotations:
        assert (
            out[annotation["id"]].items()
            >= {k: v for k, v in annotation.items() if k != "category_id"}.items()
        )
        assert (
            names[out[annotation["id"]]["category_id"]]
            == {3: "glass bottle", 17: "cigarette"}[annotation["category_id"]]
        )
    assert sorted(written["licenses"], key=lambda entry: entry["id"]) == sorted(
        licenses, key=lambda entry: entry["id"]
    )
    coco = COCO(tmp_path / "out" / "annotations.json")
    assert len(coco.getAnnIds(imgIds=[10])) == 2
    again = read_coco(tmp_path / "out")
    assert not again.faults


def test_names_never_collide(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Equal names, names that differ in case or ending, and names that lead out all become distinct."""
    names = ["a.jpg", "a.jpg", "A.JPG", "a.png", "../../b.jpg", "/etc/c.jpg", ""]
    log = tmp_path / "data"
    for number, name in enumerate(names):
        one = frame(number, file_name=name)
        append_turn(
            log,
            "t",
            [one],
            [(one.sha256, Labels(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, bool)))],
            taxonomy,
        )
    for kind, pattern in (("coco", "images/**/*"), ("voc", "JPEGImages/**/*"), ("yolo", "images/**/*")):
        out = tmp_path / kind
        export_dataset(Log(log, taxonomy), kind, out)  # type: ignore[arg-type]
        files = [path for path in out.glob(pattern) if path.is_file()]
        assert len({str(path).lower() for path in files}) == len(names)
        assert {path.read_bytes() for path in files} == {bytes(frame(n).jpeg) for n in range(len(names))}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "coco", "data", "voc", "yolo"]
    first = json.loads((tmp_path / "coco" / "annotations.json").read_text())["images"][:2]
    assert [image["file_name"] for image in first] == ["a.jpg", f"a-{frame(1).sha256[:8]}.jpg"]


def test_a_folder_in_use_is_refused(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """An export needs a new or empty folder, and unlabelled frames are not exported as backgrounds."""
    log = log_of(tmp_path / "data", [[]], taxonomy)
    append_turn(tmp_path / "data", "unlabelled", [frame(9)], [], taxonomy)
    log = Log(tmp_path / "data", taxonomy)
    used = tmp_path / "used"
    used.mkdir()
    export_dataset(log, "coco", used)
    assert len(json.loads((used / "annotations.json").read_text())["images"]) == 1
    with pytest.raises(UserError, match="not an empty folder"):
        export_dataset(log, "coco", used)
    with pytest.raises(UserError, match="none of coco, voc, yolo"):
        export_dataset(log, "createml", tmp_path / "new")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
