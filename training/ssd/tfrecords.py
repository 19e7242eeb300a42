"""Write frames as TFRecords with the TensorFlow Object Detection API's keys: sharded, shuffled, no TensorFlow needed."""

import hashlib
import os
import shutil
import struct
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from dataset import Frame, Frames
from training.ssd.params import TfrecordParams
from trashnet.errors import UserError
from trashnet.files import write_json, write_text
from trashnet.taxonomy import Taxonomy

LABEL_MAP = "label_map.pbtxt"
MANIFEST = "manifest.json"
MANY = 5_000  # frames, a second's work: for fewer, starting processes takes longer than it saves


def write_tfrecords(
    train: Frames, val: Frames, taxonomy: Taxonomy, out: Path, params: TfrecordParams, seed: int
) -> None:
    """Write both splits into ``out``: shards ``train-00000-of-00008.tfrecord``, ..., ``label_map.pbtxt`` and, last, ``manifest.json``.

    Each split is shuffled as a whole by the seed, then dealt out, so that every shard is a fair sample and
    shards differ by at most one record. Records are ``tf.train.Example`` with the keys of the TensorFlow
    Object Detection API: the JPEG as stored, boxes as float32 ``xmin, xmax, ymin, ymax`` in 0..1, labels as
    taxonomy ids. A frame may have no boxes. The same frames and seed give the same bytes on any machine. What
    was in ``out`` is replaced.

    Raises :class:`UserError` if a split is empty or a frame is not labelled.
    """
    staged = out.parent / f".{out.name}.part"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    jobs: list[tuple[str, str, Frames]] = []
    for split, frames, shards in (("train", train, params.train_shards), ("val", val, params.val_shards)):
        if not len(frames):
            raise UserError(
                f"no frame to write as {split}: a detector needs both train and val. `trashnet dataset` shows the splits."
            )
        order = np.random.default_rng([seed, len(jobs)]).permutation(len(frames))
        for shard in range(shards):
            jobs.append(
                (split, f"{split}-{shard:05d}-of-{shards:05d}.tfrecord", frames.take(order[shard::shards]))
            )
    write = partial(_write_shard, folder=staged, taxonomy=taxonomy)
    if len(train) + len(val) < MANY:
        shards_written = [write(job) for job in jobs]
    else:
        with ProcessPoolExecutor(
            min(len(jobs), len(os.sched_getaffinity(0))), get_context("forkserver")
        ) as pool:
            shards_written = list(pool.map(write, jobs))
    write_text(staged / LABEL_MAP, label_map(taxonomy))
    splits = {
        split: {
            key: sum(s[key] for s in shards_written if s["split"] == split) for key in ("records", "boxes")
        }
        for split in ("train", "val")
    }
    write_json(
        staged / MANIFEST,
        {"seed": seed, "classes": list(taxonomy.names), "splits": splits, "shards": shards_written},
    )
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)


def label_map(taxonomy: Taxonomy) -> str:
    """The classes as the Object Detection API's ``label_map.pbtxt``."""
    quoted = ((one.id, one.name.replace("\\", "\\\\").replace('"', '\\"')) for one in taxonomy.classes)
    return "".join(f'item {{\n  id: {number}\n  name: "{name}"\n}}\n' for number, name in quoted)


def example(frame: Frame, taxonomy: Taxonomy) -> bytes:
    """A frame as a serialised ``tf.train.Example``; see :func:`write_tfrecords`.

    Raises :class:`UserError` for a frame without labels: that is not a frame without waste.
    """
    labels = frame.labels
    if labels is None:
        raise UserError(
            f"frame {frame.sha256} has no labels; a background frame is labelled with an empty list"
        )
    x, y, w, h = labels.boxes.T
    ids = labels.class_ids.tolist()
    features: dict[str, Any] = {
        "image/encoded": [bytes(frame.jpeg)],
        "image/format": [b"jpeg"],
        "image/height": [frame.height],
        "image/width": [frame.width],
        "image/filename": [frame.file_name.encode()],
        "image/source_id": [frame.sha256.encode()],
        "image/key/sha256": [frame.sha256.encode()],
        "image/object/bbox/xmin": (x / frame.width).tolist(),
        "image/object/bbox/xmax": ((x + w) / frame.width).tolist(),
        "image/object/bbox/ymin": (y / frame.height).tolist(),
        "image/object/bbox/ymax": ((y + h) / frame.height).tolist(),
        "image/object/class/text": [taxonomy.name_of[i].encode() for i in ids],
        "image/object/class/label": ids,
        "image/object/is_crowd": labels.crowd.astype(int).tolist(),
        "image/object/area": (w * h).tolist(),
        "image/object/difficult": [int(bool(extra.get("difficult", False))) for extra in labels.extra],
    }
    return _serialised(features)


def record(data: bytes) -> bytes:
    """One TFRecord: length (uint64), its masked CRC-32C, the data, its masked CRC-32C, all little-endian.

    The format is TensorFlow's ``core/lib/io/record_writer.h``.
    """
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    # Rotated right by 15 and a constant added, so that a CRC of data that holds CRCs is still worth
    # something.
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _write_shard(job: tuple[str, str, Frames], folder: Path, taxonomy: Taxonomy) -> dict[str, Any]:
    split, name, frames = job
    digest, size, boxes = hashlib.sha256(), 0, 0
    with (folder / name).open("wb") as sink:
        for frame in frames:
            framed = record(example(frame, taxonomy))
            sink.write(framed)
            digest.update(framed)
            size += len(framed)
            boxes += len(frame.labels or ())
    return {
        "split": split,
        "name": name,
        "records": len(frames),
        "boxes": boxes,
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


FLOATS = {
    "bbox/xmin",
    "bbox/xmax",
    "bbox/ymin",
    "bbox/ymax",
    "area",
}  # under image/object/; an empty list has a type too


def _serialised(features: dict[str, Sequence[Any]]) -> bytes:
    message = _EXAMPLE()
    for name, values in features.items():
        feature = message.features.feature[name]
        if name.removeprefix("image/object/") in FLOATS:
            feature.float_list.value.extend(values)
        elif name == "image/object/class/text" or (values and isinstance(values[0], bytes)):
            feature.bytes_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return bytes(message.SerializeToString(deterministic=True))


def _example_class() -> Any:
    """``tf.train.Example`` (tensorflow/core/example/example.proto and feature.proto), declared here to do without TensorFlow.

    Under a package of our own: TensorFlow in the same process declares its messages in the same pool.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="trashnet/example.proto", package="trashnet", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    here = ".trashnet."
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(
            name="value", number=1, label=field.LABEL_REPEATED, type=kind
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind_name) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), 1
    ):
        one = feature.field.add(
            name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE, oneof_index=0
        )
        one.type_name = here + kind_name
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(
        name="FeatureEntry", options=descriptor_pb2.MessageOptions(map_entry=True)
    )
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=here + "Feature",
    )
    repeated = features.field.add(
        name="feature", number=1, label=field.LABEL_REPEATED, type=field.TYPE_MESSAGE
    )
    repeated.type_name = here + "Features.FeatureEntry"
    outer = file.message_type.add(name="Example")
    outer.field.add(
        name="features",
        number=1,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=here + "Features",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("trashnet.Example"))


_EXAMPLE = _example_class()
