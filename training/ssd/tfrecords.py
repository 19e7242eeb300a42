"""Frames as TFRecords with the keys of the TensorFlow Object Detection API: shuffled and sharded."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dataset import Frame, Frames
from training.ssd.params import TfrecordParams
from trashnet.errors import UserError
from trashnet.files import write_json, write_text
from trashnet.taxonomy import Taxonomy

LABEL_MAP_FILE = "label_map.pbtxt"
MANIFEST_FILE = "manifest.json"


class Shard(NamedTuple):
    """One file to write: its split, its name and its frames in order."""

    split: str
    name: str
    frames: Frames


def write_tfrecords(
    train: Frames, val: Frames, taxonomy: Taxonomy, out: Path, params: TfrecordParams, seed: int
) -> None:
    """Write both splits into ``out``.

    The files are the shards ``train-00000-of-00008.tfrecord``, ..., ``label_map.pbtxt`` and, last,
    ``manifest.json``. Each split is shuffled as a whole by the seed, then dealt out, so that every shard is a
    fair sample and shards differ by at most one record. Records are ``tf.train.Example`` with the keys of the
    TensorFlow Object Detection API: the JPEG as stored, boxes as float32 ``xmin, xmax, ymin, ymax`` in 0..1,
    labels as taxonomy ids. A frame may have no boxes. The same frames and seed give the same bytes on any
    machine. What was in ``out`` is replaced.

    Raises:
        UserError: A split is empty, or a frame is not labelled.
    """
    shards = _assign_shards({"train": (train, params.train_shards), "val": (val, params.val_shards)}, seed)
    partial_out = out.parent / f".{out.name}.part"
    shutil.rmtree(partial_out, ignore_errors=True)
    partial_out.mkdir(parents=True)
    # Threads, not processes: most of the time goes into TensorFlow's writer and into hashing, which release
    # the lock of the interpreter, and each process would import TensorFlow first.
    with ThreadPoolExecutor(min(len(shards), len(os.sched_getaffinity(0)))) as pool:
        written = list(pool.map(partial(_write_shard, folder=partial_out, taxonomy=taxonomy), shards))
    write_text(partial_out / LABEL_MAP_FILE, label_map(taxonomy))
    splits = {
        split: {
            key: sum(shard[key] for shard in written if shard["split"] == split)
            for key in ("records", "boxes")
        }
        for split in ("train", "val")
    }
    write_json(
        partial_out / MANIFEST_FILE,
        {"seed": seed, "classes": list(taxonomy.names), "splits": splits, "shards": written},
    )
    shutil.rmtree(out, ignore_errors=True)
    partial_out.rename(out)


def label_map(taxonomy: Taxonomy) -> str:
    """The classes as the Object Detection API's ``label_map.pbtxt``."""
    items = ((cls.id, cls.name.replace("\\", "\\\\").replace('"', '\\"')) for cls in taxonomy.classes)
    return "".join(f'item {{\n  id: {class_id}\n  name: "{name}"\n}}\n' for class_id, name in items)


def make_example(frame: Frame, taxonomy: Taxonomy) -> tf.train.Example:
    """A frame as a ``tf.train.Example``; see :func:`write_tfrecords`.

    Raises:
        UserError: The frame has no labels; a frame without waste has an empty list of them.
    """
    labels = frame.labels
    if labels is None:
        raise UserError(
            f"frame {frame.sha256} has no labels; a background frame is labelled with an empty list"
        )
    x, y, w, h = labels.boxes.T
    class_ids = labels.class_ids.tolist()
    features = {
        "image/encoded": _bytes([bytes(frame.jpeg)]),
        "image/format": _bytes([b"jpeg"]),
        "image/height": _integers([frame.height]),
        "image/width": _integers([frame.width]),
        "image/filename": _bytes([frame.file_name.encode()]),
        "image/source_id": _bytes([frame.sha256.encode()]),
        "image/key/sha256": _bytes([frame.sha256.encode()]),
        "image/object/bbox/xmin": _floats((x / frame.width).tolist()),
        "image/object/bbox/xmax": _floats(((x + w) / frame.width).tolist()),
        "image/object/bbox/ymin": _floats((y / frame.height).tolist()),
        "image/object/bbox/ymax": _floats(((y + h) / frame.height).tolist()),
        "image/object/class/text": _bytes([taxonomy.name_of[class_id].encode() for class_id in class_ids]),
        "image/object/class/label": _integers(class_ids),
        "image/object/is_crowd": _integers(labels.crowd.astype(int).tolist()),
        "image/object/area": _floats((w * h).tolist()),
        "image/object/difficult": _integers(
            [int(bool(extra.get("difficult", False))) for extra in labels.extra]
        ),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _bytes(values: Sequence[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(values: Sequence[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Sequence[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _assign_shards(splits: dict[str, tuple[Frames, int]], seed: int) -> list[Shard]:
    shards: list[Shard] = []
    for split, (frames, count) in splits.items():
        if not len(frames):
            raise UserError(
                f"no frame to write as {split}: a detector needs both train and val. "
                "`trashnet dataset` shows the splits."
            )
        order = np.random.default_rng([seed, len(shards)]).permutation(len(frames))
        for index in range(count):
            name = f"{split}-{index:05d}-of-{count:05d}.tfrecord"
            shards.append(Shard(split, name, frames.take(order[index::count])))
    return shards


def _write_shard(shard: Shard, folder: Path, taxonomy: Taxonomy) -> dict[str, Any]:
    path = folder / shard.name
    boxes = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for frame in shard.frames:
            # Deterministic: the features are a map, whose order protobuf leaves open otherwise.
            writer.write(make_example(frame, taxonomy).SerializeToString(deterministic=True))
            boxes += len(frame.labels or ())
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "split": shard.split,
        "name": shard.name,
        "records": len(shard.frames),
        "boxes": boxes,
        "bytes": path.stat().st_size,
        "sha256": sha256,
    }
