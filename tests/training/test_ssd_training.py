"""The student's training: it learns, it repeats, it survives a kill, it says what it began from."""

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
from training.ssd import SsdParams, TrainReport, train
from training.ssd.model import build_model, load_backbone, prepare
from training.ssd.tfrecords import TfrecordParams, write_tfrecords
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

TINY = SsdParams(image_size=64, epochs=4, batch_size=4, warmup_epochs=1, weights="none")
REPOSITORY = Path(__file__).resolve().parents[2]


def _weights(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path / "model.weights.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _run(root: Path, taxonomy: Taxonomy, out: str, checkpoints: str, params: SsdParams = TINY) -> TrainReport:
    return train(
        root / "tfrecords", taxonomy, params, 3, root / out, root / f"live-{out}", root / checkpoints
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, sample_log: Log, taxonomy: Taxonomy) -> Path:
    """A folder with TFRecords of 8 training and 3 validation frames."""
    root = tmp_path_factory.mktemp("ssd")
    train_frames, val_frames = sample_log.frames("train")[:8], sample_log.frames("val")[:3]
    write_tfrecords(
        train_frames,
        val_frames,
        taxonomy,
        root / "tfrecords",
        TfrecordParams(train_shards=2, val_shards=2),
        seed=1,
    )
    return root


@pytest.fixture(scope="module")
def uninterrupted(records: Path, taxonomy: Taxonomy) -> TrainReport:
    """A run of four epochs, augmented, that nothing disturbs."""
    return _run(records, taxonomy, "whole", "checkpoints")


def test_it_learns(sample_log: Log, taxonomy: Taxonomy) -> None:
    """From random weights, 100 steps on 8 images: the Keras model finds their items (AP@0.5 above 0.9) and no longer errs."""
    learnt = overfitted_ssd(sample_log, taxonomy)
    assert learnt.report.loss < 0.3  # mean of the last epoch; it begins above 5
    assert average_precision(KerasDetector(learnt.folder), learnt.frames) > 0.9


def test_what_training_leaves_behind(records: Path, taxonomy: Taxonomy, uninterrupted: TrainReport) -> None:
    """The description names the classes, the seed and what the backbone began from; the metrics of every epoch are in DVCLive's folder."""
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
def test_after_a_kill_training_goes_on_and_ends_where_it_would_have(
    records: Path, taxonomy: Taxonomy, uninterrupted: TrainReport, tmp_path: Path
) -> None:
    """Killed with SIGKILL after the first epochs and run again: weights equal, bit for bit, to those of the run nobody disturbed."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.training.test_ssd_training import _run\n"
        "from trashnet.taxonomy import load_taxonomy\n"
        "_run(Path(sys.argv[2]), load_taxonomy(Path(sys.argv[1]) / 'taxonomy.yaml'), 'killed', 'killed-checkpoints')\n"
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
    report = _run(records, taxonomy, "killed", "killed-checkpoints")
    assert 1 <= report.resumed_at < 4
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
    """Without the manifest, which is written last, the folder is a crash's remains."""
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
        train(
            records / "tfrecords",
            swapped,
            TINY,
            1,
            tmp_path / "out",
            tmp_path / "live",
            tmp_path / "checkpoints",
        )


def test_a_weights_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """A wish for pretrained weights is never quietly granted with random ones."""
    with pytest.raises(UserError, match=r"mobilenet_v2_1\.0_224_no_top"):
        load_backbone(
            build_model(64, 3), TINY.model_copy(update={"weights": "imagenet", "weights_dir": tmp_path})
        )


def test_pretrained_weights_fill_the_backbone_and_freeze_its_statistics(tmp_path: Path) -> None:
    """Every layer of MobileNetV2 comes from the file; then its batch normalisation stays as it is, that of the extra layers learns."""
    import keras

    donor = keras.applications.MobileNetV2((224, 224, 3), include_top=False, weights=None)
    donor.save_weights(tmp_path / "mobilenet_v2_1.0_224_no_top.weights.h5")
    model = build_model(64, 3)
    params = TINY.model_copy(update={"weights": "imagenet", "weights_dir": tmp_path})
    assert load_backbone(model, params) == "ImageNet (mobilenet_v2_1.0_224_no_top.weights.h5)"
    for layer in donor.layers[1:]:  # the first is the input, which has another name
        for theirs, ours in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(theirs, ours)
    prepare(model, params, pretrained=True)
    assert not model.get_layer("block_13_expand_BN").trainable
    assert model.get_layer("extra_1_BN").trainable


def test_the_first_scores_are_rare_as_the_prior_says() -> None:
    """Untrained, every class scores about 0.01 everywhere, so that 1,917 easy anchors do not drown the first steps."""
    _, logits = build_model(64, 5)(np.zeros((1, 64, 64, 3), np.float32), training=False)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(logits))), 0.01, rtol=0.5)


def test_batches_repeat_with_the_seed_and_change_with_the_epoch(records: Path) -> None:
    """The same seed gives the same crops, flips and order; another epoch, and another seed, give others."""
    from training.ssd.input import find_records, training_batches

    files = find_records(records / "tfrecords", "train")

    def first(seed: int, epoch: int) -> np.ndarray:
        return next(training_batches(files, TINY, 4, seed, epoch).as_numpy_iterator())[0]

    assert np.array_equal(first(1, 0), first(1, 0))
    assert not np.array_equal(first(1, 0), first(1, 1))
    assert not np.array_equal(first(1, 0), first(2, 0))


def test_augmented_boxes_stay_on_their_items(records: Path, sample_log: Log) -> None:
    """Boxes keep within the image, keep their classes, and cropping and flipping moves them with the pixels."""
    from training.ssd.input import find_records, training_batches

    params = TINY.model_copy(update={"epochs": 8})
    known = {int(c) - 1 for frame in sample_log.frames("train")[:8] for c in frame.labels.class_ids}  # type: ignore[union-attr]
    seen = 0
    for images, truth in training_batches(
        find_records(records / "tfrecords", "train"), params, 4, 1
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


def test_plain_batches_are_the_frames_themselves(records: Path, sample_log: Log) -> None:
    """Without augmentation the boxes are the labels over the image's size, and the pixels those the detector would feed."""
    from training.ssd.input import find_records, validation_batches
    from trashnet.detectors._tflite import fit_image, normalise

    frames: Frames = sample_log.frames("val")[:3]
    images, truth = next(
        validation_batches(find_records(records / "tfrecords", "val"), TINY, 3).as_numpy_iterator()
    )
    by_boxes = {round(float(f.labels.boxes[0, 0] / 160), 4): f for f in frames}  # type: ignore[union-attr]
    for image, boxes, classes in zip(images, truth["boxes"], truth["classes"], strict=True):
        frame = by_boxes[round(float(boxes[0, 1]), 4)]
        assert frame.labels is not None
        x, y, w, h = frame.labels.boxes.T / 160
        np.testing.assert_allclose(boxes[classes >= 0], np.stack([y, x, y + h, x + w], axis=1), atol=1e-6)
        assert (classes[classes >= 0] + 1).tolist() == frame.labels.class_ids.tolist()
        difference = np.abs(image - normalise(fit_image(frame.image(), 64))) * 127.5
        assert (
            difference.max() <= 2
        )  # grey levels: OpenCV's 11-bit weights and another JPEG decoder's rounding


@pytest.mark.slow  # a process of its own, with torch
def test_model_and_loss_train_on_another_backend() -> None:
    """Without TensorFlow: Keras on torch, numpy batches, and the loss falls."""
    script = """
import numpy as np, keras, sys
from training.ssd.model import build_model, prepare
from training.ssd.params import SsdParams
assert keras.config.backend() == "torch" and "tensorflow" not in sys.modules
keras.utils.set_random_seed(0)
model = build_model(64, 3)
prepare(model, SsdParams(image_size=64, weights="none"), pretrained=False)
model.compile(optimizer=keras.optimizers.Adam(1e-3))
images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
truth = {"boxes": np.array([[[.1, .1, .6, .7]], [[.3, .2, .9, .8]]], "float32"), "classes": np.array([[0], [2]], "int32")}
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
