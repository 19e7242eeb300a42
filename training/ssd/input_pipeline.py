"""From TFRecords to batches: decoding, and the random crops, flips and colours of SSD.

All of it is seeded by (seed, epoch, image), so that a run repeats.
"""

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
# The share of at least one box that a random crop must cover (Liu et al. 2016, section 2.2, "data
# augmentation"); 2.0 leaves the image uncropped.
CROP_COVERAGES = (2.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
MIN_BOX_SIDE = 2e-3  # of the side of the image; a thinner box is a sliver that a crop left
DCT_METHOD = "INTEGER_ACCURATE"  # as OpenCV decodes on the bin; the default is off by up to 6 grey levels
LENGTH_BYTES = 8  # a record: its length, ...
CRC_BYTES = 4  # ... a CRC of the length, the data, a CRC of the data


def find_shards(folder: Path, split: str) -> list[Path]:
    """The TFRecord files of a split, in order.

    Raises :class:`UserError` if the folder is unfinished or the split missing.
    """
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"{folder}: no manifest.json, so no finished TFRecords here. `dvc repro tfrecords` writes them."
        )
    shards = sorted(folder.glob(f"{split}-*.tfrecord"))
    if not shards:
        raise UserError(f"{folder}: no {split}-*.tfrecord. `dvc repro tfrecords` writes them.")
    return shards


def count_records(shards: Sequence[Path]) -> int:
    """How many records the files hold; only their lengths are read.

    Raises :class:`UserError` for a truncated file.
    """
    count = 0
    for path in shards:
        size = path.stat().st_size
        with path.open("rb") as stream:
            while stream.tell() < size:
                length = stream.read(LENGTH_BYTES)
                truncated = len(length) < LENGTH_BYTES
                if not truncated:
                    end = stream.tell() + CRC_BYTES + struct.unpack("<Q", length)[0] + CRC_BYTES
                    truncated = end > size
                if truncated:
                    raise UserError(
                        f"{path}: cut off after {count} records. Delete the folder and run `dvc repro "
                        "tfrecords`."
                    )
                stream.seek(end)
                count += 1
    return count


def training_batches(
    shards: Sequence[Path], params: SsdParams, batch_size: int, seed: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Batches of all epochs from ``first_epoch`` on, shuffled and augmented.

    Each epoch drops the images that fill no batch.

    Returns:
        Batches ``(images, {"boxes", "classes"})``. ``images``: float32 ``(B, S, S, 3)`` in [-1, 1];
        ``boxes``: float32 ``(B, M, 4)``, (y0, x0, y1, x1) in [0, 1]; ``classes``: int32 ``(B, M)``, the class
        index, -1 for padding.
    """
    names = [str(path) for path in shards]

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.cast(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.constant(names), seed=epoch_seed)
        records = _read_records(tf.data.Dataset.from_tensor_slices(shuffled), len(names))
        records = records.shuffle(params.shuffle_buffer, seed=tf.cast(seed, tf.int64) * 1_000_003 + epoch)
        examples = records.enumerate().map(
            lambda index, record: _training_example(
                record, tf.stack([epoch_seed[0] * 1_000_003 + epoch, index]), params
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return _padded_batches(examples, batch_size, drop_remainder=True)

    epochs = tf.data.Dataset.range(first_epoch, params.epochs)
    return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)


def validation_batches(shards: Sequence[Path], params: SsdParams, batch_size: int) -> tf.data.Dataset:
    """One pass over the images as they are, in order.

    Batches as in :func:`training_batches`, the last may be smaller.
    """
    records = _read_records(tf.data.Dataset.from_tensor_slices([str(path) for path in shards]), len(shards))
    examples = records.map(
        lambda record: _validation_example(record, params), num_parallel_calls=tf.data.AUTOTUNE
    )
    return _padded_batches(examples, batch_size, drop_remainder=False).prefetch(tf.data.AUTOTUNE)


def _read_records(names: tf.data.Dataset, count: int) -> tf.data.Dataset:
    return names.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(count, 8),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _padded_batches(examples: tf.data.Dataset, batch_size: int, *, drop_remainder: bool) -> tf.data.Dataset:
    padding = (tf.constant(0.0), {"boxes": tf.constant(0.0), "classes": tf.constant(-1, tf.int32)})
    return examples.padded_batch(batch_size, padding_values=padding, drop_remainder=drop_remainder)


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """JPEG bytes, boxes ``(M, 4)`` and class indices ``(M,)``.

    A crowd is dropped: it says that items are there, not where.
    """
    parsed = tf.io.parse_single_example(record, FEATURES)
    columns = [
        tf.sparse.to_dense(parsed[f"image/object/bbox/{side}"]) for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    boxes = tf.clip_by_value(tf.stack(columns, axis=-1), 0.0, 1.0)
    classes = tf.cast(tf.sparse.to_dense(parsed["image/object/class/label"]), tf.int32) - 1
    crowd = tf.sparse.to_dense(parsed["image/object/is_crowd"])
    # Records of other writers may lack the key: none of their boxes is a crowd.
    crowd = tf.concat([crowd, tf.zeros([tf.size(classes) - tf.size(crowd)], tf.int64)], axis=0)
    single = crowd == 0
    return parsed["image/encoded"], tf.boolean_mask(boxes, single), tf.boolean_mask(classes, single)


def _validation_example(record: tf.Tensor, params: SsdParams) -> Any:
    jpeg, boxes, classes = _parse(record)
    image = _resize(tf.io.decode_jpeg(jpeg, channels=3, dct_method=DCT_METHOD), params.image_size)
    return _network_input(image, boxes, classes, params)


def _training_example(record: tf.Tensor, seed: tf.Tensor, params: SsdParams) -> Any:
    if not params.augment:
        return _validation_example(record, params)
    jpeg, boxes, classes = _parse(record)
    seeds = tf.unstack(tf.random.split(seed, 7))
    window, boxes, classes = _random_crop(
        tf.image.extract_jpeg_shape(jpeg), boxes, classes, seeds[0], seeds[1]
    )
    image = _resize(
        tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=DCT_METHOD), params.image_size
    )
    image, boxes = _random_flip(image, boxes, seeds[2])
    return _network_input(_random_colours(image, seeds[3:]), boxes, classes, params)


def _resize(image: tf.Tensor, side: int) -> tf.Tensor:
    """Stretch to a square in [0, 1], bilinear without antialiasing, as ``trashnet.detectors`` does."""
    return tf.ensure_shape(tf.image.resize(image, (side, side)), (side, side, 3)) / 255.0


def _random_crop(
    shape: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, coverage_seed: tf.Tensor, window_seed: tf.Tensor
) -> tuple[Any, Any, Any]:
    """A window ``(y, x, height, width)`` in pixels over enough of some box, and the boxes centred in it."""
    coverage = tf.constant(CROP_COVERAGES)[
        tf.random.stateless_uniform([], coverage_seed, 0, len(CROP_COVERAGES), tf.int32)
    ]
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        boxes[None],
        seed=window_seed,
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
    cropped = tf.clip_by_value(tf.boolean_mask(moved, inside), 0.0, 1.0)
    return window, cropped, tf.boolean_mask(classes, inside)


def _random_flip(image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirror left to right with probability 1/2."""
    mirrored = tf.stack([boxes[:, 0], 1.0 - boxes[:, 3], boxes[:, 2], 1.0 - boxes[:, 1]], axis=-1)
    flip = tf.random.stateless_uniform([], seed) < 0.5
    return tf.where(flip, image[:, ::-1], image), tf.where(flip, mirrored, boxes)


def _random_colours(image: tf.Tensor, seeds: Sequence[tf.Tensor]) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, in the ranges of the code of Liu et al.; stays in [0, 1]."""
    image = tf.image.stateless_random_brightness(image, 32 / 255, seeds[0])
    image = tf.image.stateless_random_contrast(image, 0.5, 1.5, seeds[1])
    image = tf.clip_by_value(image, 0.0, 1.0)  # saturation and hue are defined for valid colours only
    image = tf.image.stateless_random_saturation(image, 0.5, 1.5, seeds[2])
    return tf.clip_by_value(tf.image.stateless_random_hue(image, 18 / 360, seeds[3]), 0.0, 1.0)


def _network_input(image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, params: SsdParams) -> Any:
    large = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE, axis=1)
    boxes = tf.boolean_mask(boxes, large)[: params.max_boxes]
    classes = tf.boolean_mask(classes, large)[: params.max_boxes]
    # Every image gets one row of padding, so that a batch without any box still has a row to take the maximum
    # over.
    return image * 2.0 - 1.0, {
        "boxes": tf.pad(boxes, [[0, 1], [0, 0]]),
        "classes": tf.pad(classes, [[0, 1]], constant_values=-1),
    }
