"""Detections on a gate set are made once, in the background, and kept."""

from pathlib import Path

import pytest

from dataset import Log
from evaluation import Predictions
from tests.viewer.models import write_onnx
from trashnet.taxonomy import Taxonomy
from viewer import detection_job
from viewer.detection_job import DetectionJob, detections_file

LONG = 300.0  # seconds; a test that waits so long has failed


@pytest.fixture
def model(tmp_path: Path, taxonomy: Taxonomy) -> Path:
    """A model that detects one can on every photo."""
    write_onnx(tmp_path / "model.onnx", taxonomy.names, "Drink can", 0.9)
    return tmp_path / "model.onnx"


def test_the_detections_are_kept_and_the_model_is_not_asked_again(
    sample_log: Log, taxonomy: Taxonomy, model: Path, tmp_path: Path
) -> None:
    """The second job reads what the first one wrote; it could not get a model at all."""
    frames, kept = sample_log.frames("test"), tmp_path / "kept" / "detections-1.json"

    def never() -> Path:
        raise AssertionError("asked for the model")

    first = DetectionJob(lambda: model, frames, taxonomy, kept)
    assert first.wait(LONG)
    assert (first.error, first.done, first.total) == (None, 4, 4)
    second = DetectionJob(never, frames, taxonomy, kept)
    assert second.wait(LONG)
    assert second.error is None
    for job in (first, second):
        assert not job.is_running
        assert job.predictions is not None
        assert job.predictions.images == tuple(frames[i].sha256 for i in range(4))
        assert job.predictions.class_ids.tolist() == [taxonomy.id_of["Drink can"]] * 4


def test_damaged_detections_are_made_anew(
    sample_log: Log, taxonomy: Taxonomy, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the file."""
    frames, kept = sample_log.frames("test"), tmp_path / "detections-1.json"
    kept.write_text("[{")
    job = DetectionJob(lambda: model, frames, taxonomy, kept)
    assert job.wait(LONG)
    assert job.error is None
    assert str(kept) in caplog.text
    assert len(Predictions.read(kept, [frames[i].sha256 for i in range(4)])) == 4


def test_what_goes_wrong_is_a_sentence(sample_log: Log, taxonomy: Taxonomy, tmp_path: Path) -> None:
    """A model that is not there is named; nothing is kept."""
    kept = tmp_path / "detections-1.json"
    job = DetectionJob(lambda: tmp_path / "lost.onnx", sample_log.frames("test"), taxonomy, kept)
    assert job.wait(LONG)
    assert not job.is_running
    assert job.error is not None
    assert "lost.onnx: no such model" in job.error
    assert not kept.exists()


def test_old_detections_are_removed(
    sample_log: Log, taxonomy: Taxonomy, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files are kept here: a third one takes the place of the oldest."""
    monkeypatch.setattr(detection_job, "KEPT_FILES", 2)
    for number in range(3):
        job = DetectionJob(
            lambda: model, sample_log.frames("val"), taxonomy, tmp_path / f"detections-{number}.json"
        )
        assert job.wait(LONG)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["detections-1.json", "detections-2.json"]


def test_another_model_frame_or_taxonomy_has_another_file(tmp_path: Path) -> None:
    """And the same ones the same."""
    names = {
        detections_file(tmp_path, model, images, key)
        for model in ("a" * 64, "b" * 64)
        for images in (["1"], ["1", "2"])
        for key in ("k", "l")
    }
    assert len(names) == 8
    assert detections_file(tmp_path, "a" * 64, ["1"], "k") in names
