"""The training data of the teacher: letterbox, augmentation that moves the boxes along, sampling, workers."""

import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dataset import Frame, Frames, Labels, Log, append_turn
from training.efficientdet import data
from training.efficientdet.data import DetectionDataset, EpochSampler, collate, make_loader, worker_count
from training.efficientdet.params import EfficientDetParams, TransformParams
from trashnet.letterbox import FILL, letterbox
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

NO_AUGMENTATION = TransformParams(scale=(1.0, 1.0), flip=0, colour=0)
GEOMETRIC = TransformParams(scale=(0.4, 2.0), flip=0.5, colour=0, min_visibility=0.0)
RED = (250, 10, 10)


def frames_of(
    root: Path, taxonomy: Taxonomy, *scenes: tuple[NDArray[np.uint8], list[list[float]], list[bool]]
) -> Frames:
    """A log of images with boxes (all of class 3) and crowd flags."""
    frames, labels = [], []
    for image, boxes, crowd in scenes:
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
        sha = hashlib.sha256(jpeg).hexdigest()
        frames.append(Frame(sha, jpeg, image.shape[1], image.shape[0], "train", sha, 0, "x.jpg"))
        labels.append(
            (
                sha,
                Labels(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 3), np.array(crowd, bool)),
            )
        )
    append_turn(root, "drawn", frames, labels, taxonomy)
    return Log(root, taxonomy).frames("train")


def scene(width: int, height: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A grey image with red boxes."""
    image = np.full((height, width, 3), 128, np.uint8)
    for x, y, w, h in boxes:
        image[y : y + h, x : x + w] = RED
    return image


@pytest.mark.parametrize(
    ("shape", "scale", "fitted"),
    [
        ((50, 100), 1.28, (64, 128)),  # 128 / 100; 50 x 1.28 = 64
        ((200, 100), 0.64, (128, 64)),
        ((128, 128), 1.0, (128, 128)),
        ((1, 1000), 0.128, (1, 128)),  # 0.128 rows are still one
    ],
)
def test_a_letterboxed_image_lies_top_left_and_the_rest_is_filled(
    shape: tuple[int, int], scale: float, fitted: tuple[int, int]
):
    """The longer side fits, the shape stays, no pixel of the rest is anything but the fill."""
    letterboxed, factor = letterbox(np.full((*shape, 3), 7, np.uint8), 128)
    assert factor == pytest.approx(scale)
    assert letterboxed.shape == (128, 128, 3)
    inside = np.zeros((128, 128), bool)
    inside[: fitted[0], : fitted[1]] = True
    assert (letterboxed[inside] == 7).all()
    assert (letterboxed[~inside] == FILL).all()


def test_without_augmentation_training_samples_are_validation_samples(tmp_path: Path, taxonomy: Taxonomy):
    """Pixel for pixel; boxes to what rounding the height to whole pixels moves them (77 instead of 76.8)."""
    frames = frames_of(
        tmp_path / "data", taxonomy, (scene(150, 90, (30, 20, 40, 30)), [[30, 20, 40, 30]], [False])
    )
    trained, validated = (
        DetectionDataset(frames, 128, 1, NO_AUGMENTATION)[0, 0],
        DetectionDataset(frames, 128, 1, None)[0, 0],
    )
    assert np.array_equal(trained.image, validated.image)
    np.testing.assert_allclose(trained.boxes, validated.boxes, atol=0.2)
    # 128 / 150 = 0.85333: x 25.6 to 59.73, y 17.07 to 42.67
    np.testing.assert_allclose(validated.boxes, [[25.6, 17.0667, 59.7333, 42.6667]], rtol=1e-4)


def test_boxes_follow_the_image_through_every_augmentation(tmp_path: Path, taxonomy: Taxonomy):
    """60 random scales, crops, flips and positions: the box encloses the red area to 1.5 pixels."""
    frames = frames_of(
        tmp_path / "data", taxonomy, (scene(240, 160, (60, 40, 70, 50)), [[60, 40, 70, 50]], [False])
    )
    samples = DetectionDataset(frames, 256, 1, GEOMETRIC)
    seen = 0
    for epoch in range(60):
        sample = samples[epoch, 0]
        red = (sample.image[..., 0] > 190) & (sample.image[..., 1] < 80)
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert len(sample.boxes) == 1, "the crop goes through a box"
        drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(sample.boxes[0], drawn, atol=1.5)
        seen += 1
    assert seen == 60


def test_augmentation_zooms_both_ways_and_flips(tmp_path: Path, taxonomy: Taxonomy):
    """Over many epochs the box appears at half and at twice its size, and its left half on the right."""
    image = scene(200, 200, (80, 80, 40, 40))
    image[80:120, 80:100] = (10, 10, 250)
    frames = frames_of(tmp_path / "data", taxonomy, (image, [[80, 80, 40, 40]], [False]))
    samples = DetectionDataset(frames, 256, 1, GEOMETRIC)
    widths, mirrored = [], 0
    for epoch in range(60):
        sample = samples[epoch, 0]
        x0, y0, x1, y1 = sample.boxes[0].round().astype(int)
        widths.append(x1 - x0)
        middle = sample.image[(y0 + y1) // 2, x0:x1]
        mirrored += bool(middle[-1, 2] > 150 and middle[0, 0] > 150)
    assert min(widths) < 0.6 * 51 < 1.5 * 51 < max(widths)  # 40 px at 256 / 200 are 51
    assert 10 < mirrored < 50


def test_colours_change_but_never_the_padding(tmp_path: Path, taxonomy: Taxonomy):
    """The fill is what validation pads with."""
    frames = frames_of(
        tmp_path / "data", taxonomy, (scene(200, 100, (80, 20, 40, 40)), [[80, 20, 40, 40]], [False])
    )
    samples = DetectionDataset(frames, 128, 1, TransformParams(scale=(1.0, 1.0), flip=0, colour=1.0))
    images = np.stack([samples[epoch, 0].image for epoch in range(10)])
    assert images[:, 10, 10].std(axis=0).max() > 3
    assert (images[:, 70:] == FILL).all()


def test_crowds_are_left_out_and_backgrounds_stay(tmp_path: Path, taxonomy: Taxonomy):
    """A frame with a crowd only, and a frame with nothing, are samples without boxes."""
    frames = frames_of(
        tmp_path / "data",
        taxonomy,
        (scene(100, 100), [[10, 10, 50, 50]], [True]),
        (scene(101, 100), [], []),
        (scene(102, 100), [[10, 10, 50, 50], [0, 0, 90, 90]], [False, True]),
    )
    for transforms in (None, GEOMETRIC):
        assert [len(DetectionDataset(frames, 128, 1, transforms)[0, i].boxes) for i in range(3)] == [0, 0, 1]


def test_boxes_outside_the_frame_and_slivers_are_left_out(tmp_path: Path, taxonomy: Taxonomy):
    """The part of a box within the frame counts, unless it is under two pixels of the input."""
    frames = frames_of(
        tmp_path / "data",
        taxonomy,
        (scene(128, 128), [[-20, 10, 40, 40], [50, 50, 1, 40], [127.5, 0, 30, 30]], [False] * 3),
    )
    np.testing.assert_allclose(DetectionDataset(frames, 128, 1, None)[0, 0].boxes, [[0, 10, 20, 50]])


def test_an_epoch_is_every_frame_once_in_another_order():
    """The same epoch has the same order, another epoch another."""
    sampler = EpochSampler(20, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(20))
    assert [i for _, i in first] != [i for _, i in second]
    assert {epoch for epoch, _ in second} == {1}


def test_processes_share_an_epoch_evenly():
    """Three processes, 20 frames: 7 steps each, every frame seen, one repeated; validation repeats none."""
    shares = [list(EpochSampler(20, 1, rank, 3)) for rank in range(3)]
    assert [len(s) for s in shares] == [7, 7, 7]
    assert {i for share in shares for _, i in share} == set(range(20))
    checked = [list(EpochSampler(20, 1, rank, 3, shuffle=False)) for rank in range(3)]
    assert sorted(i for share in checked for _, i in share) == list(range(20))
    assert [len(EpochSampler(20, 1, rank, 3, shuffle=False)) for rank in range(3)] == [
        len(s) for s in checked
    ]


def test_boxes_are_padded_with_class_minus_one(tmp_path: Path, taxonomy: Taxonomy):
    """Two boxes and none: both rows are 8 long, y before x, pixels uint8."""
    frames = frames_of(
        tmp_path / "data",
        taxonomy,
        (scene(128, 128), [[10, 20, 30, 40], [1, 2, 50, 60]], [False, False]),
        (scene(128, 127), [], []),
    )
    samples = DetectionDataset(frames, 128, 1, None)
    batch = collate([samples[0, 0], samples[0, 1]])
    assert batch.images.shape == (2, 128, 128, 3)
    assert batch.images.dtype.is_floating_point is False
    assert batch.classes.tolist() == [[2, 2] + [-1] * 6, [-1] * 8]
    assert batch.boxes[0, 0].tolist() == [20, 10, 60, 40]


def test_workers_change_nothing_but_the_speed(sample_log: Log):
    """None, one and two worker processes give the same batches, augmentation included."""
    frames = sample_log.frames("train")

    def batches(workers: int) -> list[data.Batch]:
        params = EfficientDetParams(image_size=128, batch_size=5, workers=workers)
        return list(make_loader(frames, params, 3, training=True))

    expected = batches(0)
    assert [len(b.images) for b in expected] == [5, 5, 5]  # of 16 frames the last fills no batch
    for workers in (1, 2):
        for batch, other in zip(expected, batches(workers), strict=True):
            assert all((a == b).all() or a.isnan().all() for a, b in zip(batch, other, strict=True))


def test_samples_travel_to_a_spawned_worker(sample_log: Log):
    """Pickled they are a path and indices, not the images; unpickled they give the same sample."""
    samples = DetectionDataset(sample_log.frames("train"), 128, 1, TransformParams())
    before = samples[2, 3]  # the albumentations pipeline exists now
    packed = pickle.dumps(samples)
    assert len(packed) < 20_000
    after = pickle.loads(packed)[2, 3]
    assert np.array_equal(before.image, after.image)
    assert np.array_equal(before.boxes, after.boxes)


def test_workers_are_as_many_as_shared_memory_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Docker's 64 MB hold 20 batches of 3 MB, four for each of 5 workers; the warning names the remedy."""
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 64 * 10**6})())
    # 8 x 360^2 x 3 bytes is 3.1 MB a batch, four of them 12.4 MB a worker
    assert worker_count(8, 8, 360) == 5
    assert "--shm-size" in caplog.text
    assert worker_count(0, 8, 360) == 0
