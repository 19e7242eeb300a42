"""TFRecords in, batches out: decode, SSD's random crops, flips and colours, all seeded by (seed, epoch, image) so that a run repeats."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from training.ssd.params import SsdParams
from trashnet.errors import UserError

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/object/bbox/ymin": tf.io.VarLenFeature(tf.float32),
    "image/object/bbox/xmin": tf.io.VarLenFeature(tf.float32),
    "image/object/bbox/ymax": tf.io.VarLenFeature(tf.float32),
    "image/object/bbox/xmax": tf.io.VarLenFeature(tf.float32),
    "image/object/class/label": tf.io.VarLenFeature(tf.int64),
    "image/object/is_crowd": tf.io.VarLenFeature(tf.int64),
}
# The coverages that SSD asks of a crop for at least one box (Liu et al. 2016, section 2.2, "data
# augmentation"); 2.0 = leave uncropped.
COVERAGES = (2.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
LEAST_SIDE = 2e-3  # of the image's: a box thinner than this after cropping is a sliver nobody could find
DCT = "INTEGER_ACCURATE"  # what OpenCV decodes with on the bin; TensorFlow's own choice is off by up to 6 grey levels
RECORD_OVERHEAD = 16  # bytes around a record: length 8, its CRC 4, the data's CRC 4


def find_records(folder: Path, split: str) -> list[Path]:
    """The TFRecord files of a split, in order. Raises :class:`UserError` if the folder is unfinished or the split missing."""
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"{folder}: no manifest.json, so no finished TFRecords here. `dvc repro tfrecords` writes them."
        )
    files = sorted(folder.glob(f"{split}-*.tfrecord"))
    if not files:
        raise UserError(f"{folder}: no {split}-*.tfrecord. `dvc repro tfrecords` writes them.")
    return files


def count_records(files: Sequence[Path]) -> int:
    """How many records the files hold, by hopping from length to length. Raises :class:`UserError` for a file that was cut off."""
    count = 0
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as stream:
            while stream.tell() < size:
                header = stream.read(8)
                end = (
                    stream.tell() + struct.unpack("<Q", header)[0] + RECORD_OVERHEAD - 8
                    if len(header) == 8
                    else size + 1
                )
                if end > size:
                    raise UserError(
                        f"{path}: cut off after {count} records. Delete the folder and run `dvc repro tfrecords`."
                    )
                stream.seek(end)
                count += 1
    return count


def training_batches(
    files: Sequence[Path], params: SsdParams, batch_size: int, seed: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Batches of all epochs from ``first_epoch`` on, shuffled and augmented; each epoch drops the images that fill no batch.

    A batch is ``(images float32 (B, S, S, 3) in [-1, 1], {"boxes": float32 (B, M, 4) y0 x0 y1 x1 in [0, 1],
    "classes": int32 (B, M) class index, -1 = padding})``.
    """
    names = [str(path) for path in files]

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.stack([tf.cast(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.constant(names), seed=order)
        records = _records(tf.data.Dataset.from_tensor_slices(shuffled), len(names))
        records = records.shuffle(params.shuffle_buffer, seed=tf.cast(seed, tf.int64) * 1_000_003 + epoch)
        examples = records.enumerate().map(
            lambda number, record: _training_example(
                record, tf.stack([order[0] * 1_000_003 + epoch, number]), params
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return _batched(examples, batch_size, drop_remainder=True)

    return tf.data.Dataset.range(first_epoch, params.epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def validation_batches(files: Sequence[Path], params: SsdParams, batch_size: int) -> tf.data.Dataset:
    """One pass over the images as they are, in order; batches as :func:`training_batches` makes them, the last may be smaller."""
    records = _records(tf.data.Dataset.from_tensor_slices([str(path) for path in files]), len(files))
    examples = records.map(lambda record: _plain_example(record, params), num_parallel_calls=tf.data.AUTOTUNE)
    return _batched(examples, batch_size, drop_remainder=False).prefetch(tf.data.AUTOTUNE)


def _records(names: tf.data.Dataset, count: int) -> tf.data.Dataset:
    return names.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(count, 8),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _batched(examples: tf.data.Dataset, batch_size: int, *, drop_remainder: bool) -> tf.data.Dataset:
    padding = (tf.constant(0.0), {"boxes": tf.constant(0.0), "classes": tf.constant(-1, tf.int32)})
    return examples.padded_batch(batch_size, padding_values=padding, drop_remainder=drop_remainder)


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """JPEG bytes, boxes ``(M, 4)`` and class indices ``(M,)``; crowds are dropped: they say that there is something, not where."""
    parsed = tf.io.parse_single_example(record, FEATURES)
    columns = [
        tf.sparse.to_dense(parsed[f"image/object/bbox/{side}"]) for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    boxes = tf.clip_by_value(tf.stack(columns, axis=-1), 0.0, 1.0)
    classes = tf.cast(tf.sparse.to_dense(parsed["image/object/class/label"]), tf.int32) - 1
    crowd = tf.sparse.to_dense(parsed["image/object/is_crowd"])
    crowd = tf.concat(
        [crowd, tf.zeros([tf.size(classes) - tf.size(crowd)], tf.int64)], axis=0
    )  # the key may be left out
    single = crowd == 0
    return parsed["image/encoded"], tf.boolean_mask(boxes, single), tf.boolean_mask(classes, single)


def _plain_example(record: tf.Tensor, params: SsdParams) -> Any:
    jpeg, boxes, classes = _parse(record)
    return _example(
        _resized(tf.io.decode_jpeg(jpeg, channels=3, dct_method=DCT), params.image_size),
        boxes,
        classes,
        params,
    )


def _training_example(record: tf.Tensor, seed: tf.Tensor, params: SsdParams) -> Any:
    if not params.augment:
        return _plain_example(record, params)
    jpeg, boxes, classes = _parse(record)
    seeds = tf.unstack(tf.random.split(seed, 7))
    window, boxes, classes = _crop(tf.image.extract_jpeg_shape(jpeg), boxes, classes, seeds[0], seeds[1])
    image = _resized(
        tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=DCT), params.image_size
    )
    image, boxes = _flip(image, boxes, seeds[2])
    return _example(_recolour(image, seeds[3:]), boxes, classes, params)


def _resized(image: tf.Tensor, side: int) -> tf.Tensor:
    """Stretch to a square in [0, 1], bilinear without antialiasing: what the detector does on the bin (``fit_image``)."""
    return tf.ensure_shape(tf.image.resize(image, (side, side)), (side, side, 3)) / 255.0


def _crop(
    shape: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, first: tf.Tensor, second: tf.Tensor
) -> tuple[Any, Any, Any]:
    """A window ``(y, x, height, width)`` in pixels that covers some box well enough, and the boxes whose centres lie in it."""
    coverage = tf.constant(COVERAGES)[tf.random.stateless_uniform([], first, 0, len(COVERAGES), tf.int32)]
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        boxes[None],
        seed=second,
        min_object_covered=tf.minimum(coverage, 1.0),
        aspect_ratio_range=(0.5, 2.0),
        area_range=(0.1, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    sampled = tf.concat([begin[:2], size[:2]], axis=0)
    window = tf.where(coverage > 1.0, tf.concat([[0, 0], shape[:2]], axis=0), sampled)
    pixels = tf.cast(tf.tile(shape[:2], [2]), tf.float32)
    corner, sides = tf.cast(window[:2], tf.float32), tf.cast(window[2:], tf.float32)
    moved = (boxes * pixels - tf.tile(corner, [2])) / tf.tile(sides, [2])
    centre = (moved[:, :2] + moved[:, 2:]) / 2
    inside = tf.reduce_all((centre > 0.0) & (centre < 1.0), axis=1)
    return (
        window,
        tf.clip_by_value(tf.boolean_mask(moved, inside), 0.0, 1.0),
        tf.boolean_mask(classes, inside),
    )


def _flip(image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrored left to right, half of the time."""
    mirrored = tf.stack([boxes[:, 0], 1.0 - boxes[:, 3], boxes[:, 2], 1.0 - boxes[:, 1]], axis=-1)
    flip = tf.random.stateless_uniform([], seed) < 0.5
    return tf.where(flip, image[:, ::-1], image), tf.where(flip, mirrored, boxes)


def _recolour(image: tf.Tensor, seeds: Sequence[tf.Tensor]) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, in the ranges of Liu et al.'s code; stays in [0, 1]."""
    image = tf.image.stateless_random_brightness(image, 32 / 255, seeds[0])
    image = tf.image.stateless_random_contrast(image, 0.5, 1.5, seeds[1])
    image = tf.clip_by_value(image, 0.0, 1.0)  # hue and saturation are of a colour that exists
    image = tf.image.stateless_random_saturation(image, 0.5, 1.5, seeds[2])
    return tf.clip_by_value(tf.image.stateless_random_hue(image, 18 / 360, seeds[3]), 0.0, 1.0)


def _example(image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, params: SsdParams) -> Any:
    large = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE, axis=1)
    boxes, classes = (
        tf.boolean_mask(boxes, large)[: params.max_boxes],
        tf.boolean_mask(classes, large)[: params.max_boxes],
    )
    # One row of padding at the end of every image's, so that a batch without any box still has something to
    # take the maximum over.
    return image * 2.0 - 1.0, {
        "boxes": tf.pad(boxes, [[0, 1], [0, 0]]),
        "classes": tf.pad(classes, [[0, 1]], constant_values=-1),
    }
