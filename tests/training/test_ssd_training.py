"""The training of the student: it learns, repeats, survives a kill and names its initial weights."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from dataset import Frames, Log
from tests.overfitted import KerasDetector, average_precision, overfitted_ssd
from training.ssd import SsdParams, SsdReport, TfrecordParams, train, write_tfrecords
from training.ssd.backbone import load_backbone
from training.ssd.model import build_model, prepare_for_training
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

TINY = SsdParams(image_size=64, epochs=4, batch_size=4, warmup_epochs=1, weights="none")
REPOSITORY = Path(__file__).resolve().parents[2]


def _weights(folder: Path) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            weights[name] = item[()]

    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(collect)
    return weights


def _train(root: Path, taxonomy: Taxonomy, out: str, checkpoints: str) -> SsdReport:
    folders = root / out, root / f"live-{out}", root / checkpoints
    return train(root / "tfrecords", taxonomy, TINY, 3, *folders)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, sample_log: Log, taxonomy: Taxonomy) -> Path:
    """A folder with TFRecords of 8 training and 3 validation frames."""
    root = tmp_path_factory.mktemp("ssd")
    train_frames, val_frames = sample_log.frames("train")[:8], sample_log.frames("val")[:3]
    params = TfrecordParams(train_shards=2, val_shards=2)
    write_tfrecords(train_frames, val_frames, taxonomy, root / "tfrecords", params, seed=1)
    return root


@pytest.fixture(scope="module")
def uninterrupted(records: Path, taxonomy: Taxonomy) -> SsdReport:
    """A run of four epochs, augmented, without interruption."""
    return _train(records, taxonomy, "whole", "checkpoints")


def test_it_learns(sample_log: Log, taxonomy: Taxonomy) -> None:
    """100 steps from random weights on 8 images: loss below 0.3, AP@0.5 on them above 0.9."""
    overfitted = overfitted_ssd(sample_log, taxonomy)
    assert overfitted.report.loss < 0.3  # mean of the last epoch; the first has above 5
    assert average_precision(KerasDetector(overfitted.folder), overfitted.frames) > 0.9


def test_the_files_of_a_training(records: Path, taxonomy: Taxonomy, uninterrupted: SsdReport) -> None:
    """A description with classes, seed and initial weights, and every epoch's metrics in DVCLive's folder."""
    described = json.loads((records / "whole/model.json").read_text())
    assert described["classes"] == list(taxonomy.names)
    assert (described["image_size"], described["seed"], described["training"]["steps"]) == (64, 3, 8)
    assert described["backbone"] == "random, as asked (weights: none)"
    assert uninterrupted.images_per_second > 0
    assert 0 <= uninterrupted.waiting_share <= 1
    metrics = json.loads((records / "live-whole/metrics.json").read_text())
    assert metrics["train"]["loss"] == pytest.approx(uninterrupted.loss)
    assert metrics["val"]["loss"] == pytest.approx(uninterrupted.val_loss)
    assert len((records / "live-whole/plots/metrics/val/loss.tsv").read_text().splitlines()) == 1 + 4
    assert not (records / "live-whole/dvc.yaml").exists()
    assert list((records / "checkpoints").iterdir()) == []


@pytest.mark.slow  # two more runs, one in a process of its own
def test_a_killed_run_resumes_and_ends_with_the_same_result(
    records: Path, taxonomy: Taxonomy, uninterrupted: SsdReport, tmp_path: Path
) -> None:
    """SIGKILL after the first epochs, then a second call: the same weights, bit for bit."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.training.test_ssd_training import _train\n"
        "from trashnet.taxonomy import load_taxonomy\n"
        "taxonomy = load_taxonomy(Path(sys.argv[1]) / 'taxonomy.yaml')\n"
        "_train(Path(sys.argv[2]), taxonomy, 'killed', 'killed-checkpoints')\n"
    )
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(REPOSITORY), str(records)], stdout=log, stderr=log
        )
        deadline = time.monotonic() + 300
        while (
            process.poll() is None
            and time.monotonic() < deadline
            and _epochs_saved(records / "killed-checkpoints") < 1
        ):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()[-2000:]
    assert not (records / "killed/model.json").exists()
    report = _train(records, taxonomy, "killed", "killed-checkpoints")
    assert 1 <= report.resumed_from_epoch < 4
    assert report.loss == uninterrupted.loss
    whole, resumed = _weights(records / "whole"), _weights(records / "killed")
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not np.array_equal(whole[name], resumed[name])] == []
    assert list((records / "killed-checkpoints").iterdir()) == []


def _epochs_saved(checkpoints: Path) -> int:
    for path in checkpoints.glob("*/state.npz"):
        with np.load(path) as saved:
            return len(json.loads(str(saved["history"])))
    return 0


def test_records_that_are_not_finished_are_refused(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The manifest is written last: a folder without one was left by a crash."""
    with pytest.raises(UserError, match=r"no manifest\.json.*dvc repro tfrecords"):
        train(tmp_path, taxonomy, TINY, 1, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")


def test_a_record_file_that_was_cut_off_is_refused(records: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A partial copy must not silently train on fewer images."""
    whole = (records / "tfrecords/train-00000-of-00002.tfrecord").read_bytes()
    (tmp_path / "train-00000-of-00001.tfrecord").write_bytes(whole[:-10])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="cut off after 3 records"):
        train(tmp_path, taxonomy, TINY, 1, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")


def test_records_of_another_taxonomy_are_refused(records: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Class 5 of the records must be class 5 of the taxonomy, by name."""
    first, second, *rest = taxonomy.classes
    swapped = replace(
        taxonomy, classes=(replace(first, name=second.name), replace(second, name=first.name), *rest)
    )
    with pytest.raises(UserError, match="other classes"):
        train(records / "tfrecords", swapped, TINY, 1, tmp_path, tmp_path, tmp_path)


def test_a_weights_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """Random weights never silently replace the pretrained ones that were asked for."""
    params = TINY.model_copy(update={"weights": "imagenet", "weights_dir": tmp_path})
    with pytest.raises(UserError, match=r"mobilenet_v2_1\.0_224_no_top"):
        load_backbone(build_model(64, 3), params)


def test_pretrained_weights_fill_the_backbone_and_freeze_its_statistics(tmp_path: Path) -> None:
    """Every layer of MobileNetV2 comes from the file; only the extra layers' batch norm is trained."""
    import keras

    donor = keras.applications.MobileNetV2((224, 224, 3), include_top=False, weights=None)
    donor.save_weights(tmp_path / "mobilenet_v2_1.0_224_no_top.weights.h5")
    model = build_model(64, 3)
    params = TINY.model_copy(update={"weights": "imagenet", "weights_dir": tmp_path})
    assert load_backbone(model, params) == "ImageNet (mobilenet_v2_1.0_224_no_top.weights.h5)"
    for layer in donor.layers[1:]:  # the first is the input, which has another name
        for expected, found in zip(
            layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(expected, found)
    prepare_for_training(model, params, pretrained=True)
    assert not model.get_layer("block_13_expand_BN").trainable
    assert model.get_layer("extra_1_BN").trainable


def test_untrained_scores_equal_the_prior() -> None:
    """Every class scores about 0.01, so that 1,917 easy anchors do not dominate the first steps."""
    _, logits = build_model(64, 5)(np.zeros((1, 64, 64, 3), np.float32), training=False)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(logits))), 0.01, rtol=0.5)


def test_batches_repeat_with_the_seed_and_change_with_the_epoch(records: Path) -> None:
    """The same seed gives the same crops, flips and order; another epoch, and another seed, give others."""
    from training.ssd.input_pipeline import find_shards, training_batches

    shards = find_shards(records / "tfrecords", "train")

    def first_images(seed: int, epoch: int) -> np.ndarray:
        return next(training_batches(shards, TINY, 4, seed, epoch).as_numpy_iterator())[0]

    assert np.array_equal(first_images(1, 0), first_images(1, 0))
    assert not np.array_equal(first_images(1, 0), first_images(1, 1))
    assert not np.array_equal(first_images(1, 0), first_images(2, 0))


def test_augmented_boxes_stay_on_their_items(records: Path, sample_log: Log) -> None:
    """Boxes stay within the image and keep their classes, and crops keep items in sight."""
    from training.ssd.input_pipeline import find_shards, training_batches

    params = TINY.model_copy(update={"epochs": 8})
    labels = [frame.labels for frame in sample_log.frames("train")[:8]]
    known = {int(class_id) - 1 for label in labels if label for class_id in label.class_ids}
    seen = 0
    for images, truth in training_batches(
        find_shards(records / "tfrecords", "train"), params, 4, 1
    ).as_numpy_iterator():
        assert images.shape == (4, 64, 64, 3)
        assert images.min() >= -1
        assert images.max() <= 1
        boxes = truth["boxes"][truth["classes"] >= 0]
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert set(truth["classes"][truth["classes"] >= 0].tolist()) <= known
        seen += len(boxes)
    assert seen > 8 * 8  # the crops keep items in sight


def test_validation_batches_are_the_frames_themselves(records: Path, sample_log: Log) -> None:
    """The boxes are the labels divided by the size of the image, the pixels those that the detector feeds."""
    from training.ssd.input_pipeline import find_shards, validation_batches
    from trashnet.detectors._tflite import normalise, stretch

    frames: Frames = sample_log.frames("val")[:3]
    images, truth = next(
        validation_batches(find_shards(records / "tfrecords", "val"), TINY, 3).as_numpy_iterator()
    )
    by_boxes = {round(float(f.labels.boxes[0, 0] / 160), 4): f for f in frames}  # type: ignore[union-attr]
    for image, boxes, classes in zip(images, truth["boxes"], truth["classes"], strict=True):
        frame = by_boxes[round(float(boxes[0, 1]), 4)]
        assert frame.labels is not None
        x, y, w, h = frame.labels.boxes.T / 160
        np.testing.assert_allclose(boxes[classes >= 0], np.stack([y, x, y + h, x + w], axis=1), atol=1e-6)
        assert (classes[classes >= 0] + 1).tolist() == frame.labels.class_ids.tolist()
        difference = np.abs(image - normalise(stretch(frame.image(), 64))) * 127.5
        # Grey levels: OpenCV's 11-bit weights, and the rounding of another JPEG decoder.
        assert difference.max() <= 2


@pytest.mark.slow  # a process of its own, with torch
def test_model_and_loss_train_on_another_backend() -> None:
    """Without TensorFlow: Keras on torch, numpy batches, and the loss falls."""
    script = """
import numpy as np, keras, sys
from training.ssd.model import build_model, prepare_for_training
from training.ssd.params import SsdParams
assert keras.config.backend() == "torch" and "tensorflow" not in sys.modules
keras.utils.set_random_seed(0)
model = build_model(64, 3)
prepare_for_training(model, SsdParams(image_size=64, weights="none"), pretrained=False)
model.compile(optimizer=keras.optimizers.Adam(1e-3))
images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
boxes = np.array([[[.1, .1, .6, .7]], [[.3, .2, .9, .8]]], "float32")
truth = {"boxes": boxes, "classes": np.array([[0], [2]], "int32")}
losses = model.fit(images, truth, batch_size=2, epochs=6, verbose=0).history["loss"]
assert losses[-1] < 0.9 * losses[0], losses
"""
    environment = os.environ | {
        "KERAS_BACKEND": "torch",
        "PYTHONPATH": str(REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
