"""The models' real files run on a photo, and their detections become overlays, rows and text."""

from pathlib import Path

import numpy as np
import pytest

from dataset import Labels
from tests.viewer.conftest import PREDICTIONS
from trashnet.detectors import Detections
from trashnet.errors import UserError
from trashnet.models import MODELS
from trashnet.taxonomy import Taxonomy
from viewer.inference import (
    ModelRunner,
    describe_labels,
    detection_overlays,
    detection_rows,
    filter_detections,
    label_overlays,
)


@pytest.fixture
def found(taxonomy: Taxonomy) -> Detections:
    """A can at 0.9, a shoe at 0.5, a can at 0.2."""
    ids = np.array([taxonomy.id_of[name] for name in ("Drink can", "Shoe", "Drink can")])
    return Detections(np.array([[1, 2, 3, 4]] * 3, np.float32), ids, np.array([0.9, 0.5, 0.2], np.float32))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_each_model_runs_on_a_photo_of_any_size(model, build: Path, taxonomy: Taxonomy) -> None:  # type: ignore[no-untyped-def]
    """The box is in pixels of the given photo, and the latency is above zero."""
    result = ModelRunner(build / "models" / model.file, taxonomy).run(np.zeros((200, 200, 3), np.uint8))
    class_name, score = PREDICTIONS[model.name]
    assert [taxonomy.name_of[int(c)] for c in result.detections.class_ids] == [class_name]
    assert result.detections.scores[0] == pytest.approx(score, abs=1e-3)
    assert result.detections.boxes[0].tolist() == pytest.approx([50, 50, 100, 100], abs=0.1)
    assert result.milliseconds > 0


def test_a_missing_model_says_how_to_get_it(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The remedy is in the message that the page shows."""
    with pytest.raises(UserError, match="dvc repro"):
        ModelRunner(tmp_path / "efficientdet.onnx", taxonomy)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_damaged_model_is_refused_in_plain_words(model, tmp_path: Path, taxonomy: Taxonomy) -> None:  # type: ignore[no-untyped-def]
    """An incomplete download gives an error that names the file, not a traceback."""
    path = tmp_path / model.file
    path.write_bytes(b"\x08\x0a garbage" * 50)
    with pytest.raises(UserError, match=model.file):
        ModelRunner(path, taxonomy)


def test_the_filter_keeps_detections_above_the_score_and_of_the_chosen_classes(
    found: Detections, taxonomy: Taxonomy
) -> None:
    """No class given means every class; a score equal to the threshold is kept."""
    assert filter_detections(found, 0.5, set()).scores.tolist() == pytest.approx([0.9, 0.5])
    assert filter_detections(found, 0.0, {taxonomy.id_of["Drink can"]}).scores.tolist() == pytest.approx(
        [0.9, 0.2]
    )
    assert len(filter_detections(found, 0.95, set())) == 0


def test_detections_are_drawn_in_the_colour_of_their_stream(found: Detections, taxonomy: Taxonomy) -> None:
    """The text holds class and score, the colour shows the stream."""
    overlays = detection_overlays(found, taxonomy)
    assert [overlay.text for overlay in overlays] == ["Drink can 0.90", "Shoe 0.50", "Drink can 0.20"]
    assert [overlay.colour for overlay in overlays[:2]] == [
        taxonomy.streams["recycling"],
        taxonomy.streams["special"],
    ]
    assert {overlay.line for overlay in overlays} == {"solid"}


def test_the_table_holds_class_stream_and_score(found: Detections, taxonomy: Taxonomy) -> None:
    """Best first."""
    assert detection_rows(found, taxonomy)[1] == {"Class": "Shoe", "Stream": "special", "Score": 0.5}


def test_ground_truth_is_dashed_and_described_by_stream(taxonomy: Taxonomy) -> None:
    """Two items of one class are counted; a frame without items is called an empty bin."""
    ids = np.array([taxonomy.id_of[name] for name in ("Drink can", "Shoe", "Drink can", "Glass jar")])
    labels = Labels(np.ones((4, 4)), ids, np.zeros(4, bool))
    assert {overlay.line for overlay in label_overlays(labels, taxonomy)} == {"dashed"}
    assert describe_labels(labels, taxonomy) == "**recycling**: 2 × Drink can, Glass jar; **special**: Shoe"
    assert (
        describe_labels(Labels(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, bool)), taxonomy)
        == "an empty bin"
    )
