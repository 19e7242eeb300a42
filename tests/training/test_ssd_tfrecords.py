"""TFRecords: what TensorFlow reads back is what was in the log."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataset import Frame, Frames, Labels, Log, append_turn
from training.ssd.tfrecords import TfrecordParams, label_map, record, write_tfrecords
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

PARAMS = TfrecordParams(train_shards=3, val_shards=2)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Log:
    """14 frames of 80 x 60 with 0 to 3 boxes, some crowds, some difficult; the first 10 are for training, one has no labels."""
    frames, labels = [], []
    for number in range(14):
        rng = np.random.default_rng(number)
        jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (60, 80, 3)).astype(np.uint8))[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        frames.append(
            Frame(
                sha,
                jpeg,
                80,
                60,
                "train" if number < 10 else "val",
                f"g{number}",
                number,
                f"bin/ä{number}.jpg",
            )
        )
        boxes = np.array([[4.5 * i, 5 + i, 10.25, 20] for i in range(number % 4)], float).reshape(-1, 4)
        ids = rng.integers(1, 58, len(boxes))
        extra = tuple({"difficult": True} if i == 1 else {} for i in range(len(boxes)))
        labels.append((sha, Labels(boxes, ids, np.arange(len(boxes)) == 2, extra)))
    root = tmp_path_factory.mktemp("tfrecords") / "data"
    append_turn(root, "made", frames, labels[:13], taxonomy)
    return Log(root, taxonomy)


@pytest.fixture(scope="module")
def written(log: Log, tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Path:
    """The records of that log."""
    out = tmp_path_factory.mktemp("out") / "tfrecords"
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, out, PARAMS, seed=5)
    return out


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """All records, parsed by TensorFlow itself with the Object Detection API's feature specification."""
    import tensorflow as tf

    many, one = tf.io.VarLenFeature, tf.io.FixedLenFeature
    specification = {
        **{
            f"image/{key}": one((), tf.string)
            for key in ("encoded", "format", "filename", "source_id", "key/sha256")
        },
        **{f"image/{key}": one((), tf.int64) for key in ("height", "width")},
        **{f"image/object/bbox/{key}": many(tf.float32) for key in ("xmin", "xmax", "ymin", "ymax")},
        "image/object/area": many(tf.float32),
        "image/object/class/text": many(tf.string),
        **{f"image/object/{key}": many(tf.int64) for key in ("class/label", "is_crowd", "difficult")},
    }
    records = []
    for serialised in tf.data.TFRecordDataset([str(path) for path in paths]):
        parsed = tf.io.parse_single_example(serialised, specification)
        dense = {
            k: tf.sparse.to_dense(v) if isinstance(v, tf.sparse.SparseTensor) else v
            for k, v in parsed.items()
        }
        records.append({k: v.numpy() for k, v in dense.items()})
    return records


def test_tensorflow_reads_back_every_field(log: Log, written: Path, taxonomy: Taxonomy) -> None:
    """Each frame is there once, with its bytes, its size, its names, and its boxes as fractions of the image."""
    for split in ("train", "val"):
        records = read(sorted(written.glob(f"{split}-*")))
        frames = {frame.sha256: frame for frame in log.frames(split)}
        assert sorted(r["image/key/sha256"].decode() for r in records) == sorted(frames)
        for got in records:
            frame = frames[got["image/key/sha256"].decode()]
            assert frame.labels is not None
            assert got["image/encoded"] == bytes(frame.jpeg)
            assert (got["image/format"], got["image/source_id"]) == (b"jpeg", frame.sha256.encode())
            assert got["image/filename"].decode() == frame.file_name
            assert (got["image/height"], got["image/width"]) == (60, 80)
            x, y, w, h = frame.labels.boxes.T
            for key, expected in (
                ("xmin", x / 80),
                ("xmax", (x + w) / 80),
                ("ymin", y / 60),
                ("ymax", (y + h) / 60),
            ):
                assert np.array_equal(got[f"image/object/bbox/{key}"], expected.astype(np.float32))
            assert np.array_equal(got["image/object/area"], (w * h).astype(np.float32))
            assert got["image/object/class/label"].tolist() == frame.labels.class_ids.tolist()
            assert [t.decode() for t in got["image/object/class/text"]] == [
                taxonomy.name_of[i] for i in frame.labels.class_ids.tolist()
            ]
            assert got["image/object/is_crowd"].tolist() == frame.labels.crowd.astype(int).tolist()
            assert got["image/object/difficult"].tolist() == [
                int("difficult" in e) for e in frame.labels.extra
            ]


def test_a_frame_without_waste_has_empty_lists(written: Path) -> None:
    """Background frames are records like any other, with no boxes."""
    assert any(len(r["image/object/class/label"]) == 0 for r in read(sorted(written.glob("train-*"))))


def test_a_record_is_framed_as_tensorflow_frames_it(tmp_path: Path) -> None:
    """Byte for byte what TFRecordWriter writes, the empty record included."""
    import tensorflow as tf

    payloads = [b"", b"a", bytes(range(256)) * 40]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == b"".join(map(record, payloads))


def test_a_damaged_record_is_noticed(written: Path, tmp_path: Path) -> None:
    """One flipped bit in a shard fails its checksum in TensorFlow's reader."""
    import tensorflow as tf

    data = bytearray(sorted(written.glob("train-*"))[0].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        read([tmp_path / "damaged"])


def test_shards_are_even_and_shuffled_over_the_whole_split(log: Log, written: Path) -> None:
    """10 frames in 3 shards: 4, 3 and 3, and not in the order of the log."""
    shards = [
        [r["image/key/sha256"].decode() for r in read([path])] for path in sorted(written.glob("train-*"))
    ]
    assert [len(s) for s in shards] == [4, 3, 3]
    order = [sha for shard in shards for sha in shard]
    in_log = [frame.sha256 for frame in log.frames("train")]
    assert order != in_log
    assert sorted(order) == sorted(in_log)


def test_the_manifest_vouches_for_every_shard(written: Path, taxonomy: Taxonomy) -> None:
    """Names, counts and digests are those of the files; together they are the splits' sums; nothing else lies in the folder."""
    manifest = json.loads((written / "manifest.json").read_text())
    assert [s["name"] for s in manifest["shards"]] == [p.name for p in sorted(written.glob("*.tfrecord"))]
    for shard in manifest["shards"]:
        data = (written / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    # boxes per frame are number % 4: 0 1 2 3 0 1 2 3 0 1 = 13 in the first ten, then 2 3 0 = 5; the last
    # frame is not labelled
    assert manifest["splits"] == {"train": {"records": 10, "boxes": 13}, "val": {"records": 3, "boxes": 5}}
    assert manifest["classes"] == list(taxonomy.names)
    assert {p.name for p in written.iterdir()} == {s["name"] for s in manifest["shards"]} | {
        "manifest.json",
        "label_map.pbtxt",
    }


def test_the_same_seed_gives_the_same_bytes_and_another_another_order(
    log: Log, written: Path, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """Writing again changes nothing, even over an older result; another seed shuffles otherwise."""
    out = tmp_path / "again"
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, out, PARAMS, seed=6)
    other = {p.name: p.read_bytes() for p in out.iterdir()}
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, out, PARAMS, seed=5)
    first = {p.name: p.read_bytes() for p in written.iterdir()}
    assert {p.name: p.read_bytes() for p in out.iterdir()} == first
    assert other["train-00000-of-00003.tfrecord"] != first["train-00000-of-00003.tfrecord"]


def test_processes_write_the_same_bytes(
    log: Log, written: Path, tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large split is written by all cores at once, shard by shard, and nobody can tell from the result."""
    monkeypatch.setattr("training.ssd.tfrecords.MANY", 0)
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, tmp_path / "out", PARAMS, seed=5)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        p.name: p.read_bytes() for p in written.iterdir()
    }


def test_more_shards_than_frames_leave_some_empty(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A shard may be empty; a reader of the pattern still gets every frame once."""
    few = log.frames("val").take(np.array([0]))
    write_tfrecords(
        few, few, taxonomy, tmp_path / "out", TfrecordParams(train_shards=1, val_shards=3), seed=0
    )
    assert len(read(sorted((tmp_path / "out").glob("val-*")))) == 1


def test_originals_and_copies_are_written_together(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Frames of two logs, added up, are one split."""
    both = log.frames("train") + log.frames("val")
    write_tfrecords(both, log.frames("val"), taxonomy, tmp_path / "out", PARAMS, seed=0)
    assert len(read(sorted((tmp_path / "out").glob("train-*")))) == 13


def test_an_empty_split_and_an_unlabelled_frame_are_refused(
    log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """Both are said in plain words, and neither leaves a folder that looks finished."""
    with pytest.raises(UserError, match="no frame to write as val"):
        write_tfrecords(log.frames("train"), Frames([]), taxonomy, tmp_path / "out", PARAMS, seed=0)
    with pytest.raises(UserError, match="has no labels"):
        write_tfrecords(
            log.frames("train"), log.frames("val", labelled=False), taxonomy, tmp_path / "out", PARAMS, seed=0
        )
    assert not (tmp_path / "out").exists()


def test_the_label_map_names_every_class(written: Path, taxonomy: Taxonomy) -> None:
    """57 items with ids from 1, and quotes in a name do not break it."""
    text = (written / "label_map.pbtxt").read_text()
    assert text == label_map(taxonomy)
    assert text.count("item {") == 57
    assert 'item {\n  id: 57\n  name: "Cigarette"\n}' in text


def test_the_shipped_parameters_are_read() -> None:
    """Eight shards to train from."""
    assert (
        load_params("tfrecords", TfrecordParams, Path(__file__).parents[2] / "params.yaml").train_shards == 8
    )
