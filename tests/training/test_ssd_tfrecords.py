"""TFRecords: TensorFlow reads back what was in the log."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataset import Frame, Frames, Labels, Log, append_turn
from training.ssd import TfrecordParams, write_tfrecords
from training.ssd.tfrecords import label_map
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

PARAMS = TfrecordParams(train_shards=3, val_shards=2)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Log:
    """14 frames with 0 to 3 boxes, some crowds, some difficult: 10 for training, one without labels."""
    frames, labels = [], []
    for number in range(14):
        rng = np.random.default_rng(number)
        jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (60, 80, 3)).astype(np.uint8))[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        split = "train" if number < 10 else "val"
        frames.append(Frame(sha, jpeg, 80, 60, split, f"g{number}", number, f"bin/ä{number}.jpg"))
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

    scalar, vector = tf.io.FixedLenFeature, tf.io.VarLenFeature
    specification = {
        **{
            f"image/{key}": scalar((), tf.string)
            for key in ("encoded", "format", "filename", "source_id", "key/sha256")
        },
        **{f"image/{key}": scalar((), tf.int64) for key in ("height", "width")},
        **{f"image/object/bbox/{key}": vector(tf.float32) for key in ("xmin", "xmax", "ymin", "ymax")},
        "image/object/area": vector(tf.float32),
        "image/object/class/text": vector(tf.string),
        **{f"image/object/{key}": vector(tf.int64) for key in ("class/label", "is_crowd", "difficult")},
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
    """Each frame occurs once, with its bytes, size, names, and its boxes as fractions of the image."""
    for split in ("train", "val"):
        records = read(sorted(written.glob(f"{split}-*")))
        frames = {frame.sha256: frame for frame in log.frames(split)}
        assert sorted(r["image/key/sha256"].decode() for r in records) == sorted(frames)
        for record in records:
            frame = frames[record["image/key/sha256"].decode()]
            assert frame.labels is not None
            assert record["image/encoded"] == bytes(frame.jpeg)
            assert (record["image/format"], record["image/source_id"]) == (b"jpeg", frame.sha256.encode())
            assert record["image/filename"].decode() == frame.file_name
            assert (record["image/height"], record["image/width"]) == (60, 80)
            x, y, w, h = frame.labels.boxes.T
            sides = {"xmin": x / 80, "xmax": (x + w) / 80, "ymin": y / 60, "ymax": (y + h) / 60}
            for key, expected in sides.items():
                assert np.array_equal(record[f"image/object/bbox/{key}"], expected.astype(np.float32))
            assert np.array_equal(record["image/object/area"], (w * h).astype(np.float32))
            assert record["image/object/class/label"].tolist() == frame.labels.class_ids.tolist()
            assert [t.decode() for t in record["image/object/class/text"]] == [
                taxonomy.name_of[i] for i in frame.labels.class_ids.tolist()
            ]
            assert record["image/object/is_crowd"].tolist() == frame.labels.crowd.astype(int).tolist()
            assert record["image/object/difficult"].tolist() == [
                int("difficult" in e) for e in frame.labels.extra
            ]


def test_a_frame_without_waste_has_empty_lists(written: Path) -> None:
    """Background frames are records like any other, with no boxes."""
    assert any(len(r["image/object/class/label"]) == 0 for r in read(sorted(written.glob("train-*"))))


def test_a_record_is_framed_as_the_format_says(written: Path) -> None:
    """Length, its CRC, data, its CRC (TensorFlow's ``record_writer.h``), record after record."""
    for path in written.glob("*.tfrecord"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            for start, end in ((at, at + 8), (at + 12, at + 12 + length)):
                assert int.from_bytes(data[end : end + 4], "little") == masked_crc32c(data[start:end])
            at += 16 + length
        assert at == len(data)


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, polynomial 0x82F63B78), rotated right by 15 bits, plus TFRecord's constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


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
    paths = sorted(written.glob("train-*"))
    shards = [[record["image/key/sha256"].decode() for record in read([path])] for path in paths]
    assert [len(shard) for shard in shards] == [4, 3, 3]
    order = [sha for shard in shards for sha in shard]
    in_log = [frame.sha256 for frame in log.frames("train")]
    assert order != in_log
    assert sorted(order) == sorted(in_log)


def test_the_manifest_vouches_for_every_shard(written: Path, taxonomy: Taxonomy) -> None:
    """Names, counts and digests are those of the files, counts add up, and the folder holds nothing else."""
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


@pytest.mark.parametrize("cores", [1, 16])
def test_any_number_of_cores_writes_the_same_bytes(
    cores: int, log: Log, written: Path, tmp_path: Path, taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards are written one after the other or all at once, and the result does not tell which."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    write_tfrecords(log.frames("train"), log.frames("val"), taxonomy, tmp_path / "out", PARAMS, seed=5)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        p.name: p.read_bytes() for p in written.iterdir()
    }


def test_another_process_writes_the_same_bytes(log: Log, written: Path, tmp_path: Path) -> None:
    """Nothing depends on the process, such as the order of a hash table."""
    script = (
        "import sys; from pathlib import Path; from dataset import Log\n"
        "from trashnet.taxonomy import load_taxonomy\n"
        "from training.ssd import TfrecordParams, write_tfrecords\n"
        "taxonomy = load_taxonomy(Path('taxonomy.yaml')); log = Log(Path(sys.argv[1]), taxonomy)\n"
        "params = TfrecordParams(train_shards=3, val_shards=2)\n"
        "splits = log.frames('train'), log.frames('val')\n"
        "write_tfrecords(*splits, taxonomy, Path(sys.argv[2]), params, seed=5)\n"
    )
    arguments = [sys.executable, "-c", script, str(log.root), str(tmp_path / "out")]
    subprocess.run(arguments, check=True, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        p.name: p.read_bytes() for p in written.iterdir()
    }


def test_more_shards_than_frames_leave_some_empty(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A shard may be empty; a reader of the pattern still gets every frame once."""
    frame = log.frames("val").take(np.array([0]))
    params = TfrecordParams(train_shards=1, val_shards=3)
    write_tfrecords(frame, frame, taxonomy, tmp_path / "out", params, seed=0)
    assert len(read(sorted((tmp_path / "out").glob("val-*")))) == 1


def test_originals_and_copies_are_written_together(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Frames of two logs, added up, are one split."""
    both = log.frames("train") + log.frames("val")
    write_tfrecords(both, log.frames("val"), taxonomy, tmp_path / "out", PARAMS, seed=0)
    assert len(read(sorted((tmp_path / "out").glob("train-*")))) == 13


def test_an_empty_split_and_an_unlabelled_frame_are_refused(
    log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """The message names what is missing, and no folder is left that looks finished."""
    with pytest.raises(UserError, match="no frame to write as val"):
        write_tfrecords(log.frames("train"), Frames([]), taxonomy, tmp_path / "out", PARAMS, seed=0)
    unlabelled = log.frames("val", labelled=False)
    with pytest.raises(UserError, match="has no labels"):
        write_tfrecords(log.frames("train"), unlabelled, taxonomy, tmp_path / "out", PARAMS, seed=0)
    assert not (tmp_path / "out").exists()


def test_the_label_map_names_every_class(written: Path, taxonomy: Taxonomy) -> None:
    """57 items with ids from 1, and quotes in a name do not break it."""
    text = (written / "label_map.pbtxt").read_text()
    assert text == label_map(taxonomy)
    assert text.count("item {") == 57
    assert 'item {\n  id: 57\n  name: "Cigarette"\n}' in text


def test_the_shipped_parameters_are_read() -> None:
    """Eight shards to train from."""
    assert load_params("tfrecords", TfrecordParams, REPOSITORY / "params.yaml").train_shards == 8
