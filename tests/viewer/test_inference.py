"""A photo through the models' real files, and what is made of the result."""

from pathlib import Path

import numpy as np
import pytest

from dataset import Labels
from tests.viewer.conftest import SAYS
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
def test_each_model_looks_at_a_photo_of_any_size(model, build: Path, taxonomy: Taxonomy) -> None:  # type: ignore[no-untyped-def]
    """The box is in pixels of the photo given, and the look took some time."""
    look = ModelRunner(build / "models" / model.file, taxonomy).run(np.zeros((200, 200, 3), np.uint8))
    class_name, score = SAYS[model.name]
    assert [taxonomy.name_of[int(c)] for c in look.detections.class_ids] == [class_name]
    assert look.detections.scores[0] == pytest.approx(score, abs=1e-3)
    assert look.detections.boxes[0].tolist() == pytest.approx([50, 50, 100, 100], abs=0.1)
    assert look.milliseconds > 0


def test_a_missing_model_says_how_to_get_it(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The remedy is in the message that the page shows."""
    with pytest.raises(UserError, match="dvc repro"):
        ModelRunner(tmp_path / "efficientdet.onnx", taxonomy)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_a_damaged_model_is_refused_in_plain_words(model, tmp_path: Path, taxonomy: Taxonomy) -> None:  # type: ignore[no-untyped-def]
    """Half a download is no model, and no traceback either."""
    path = tmp_path / model.file
    path.write_bytes(b"\x08\x0a garbage" * 50)
    with pytest.raises(UserError, match=model.file):
        ModelRunner(path, taxonomy)


def test_only_keeps_what_is_sure_and_of_the_classes_wanted(found: Detections, taxonomy: Taxonomy) -> None:
    """No class named means every class; a score on the threshold counts."""
    assert filter_detections(found, 0.5, set()).scores.tolist() == pytest.approx([0.9, 0.5])
    assert filter_detections(found, 0.0, {taxonomy.id_of["Drink can"]}).scores.tolist() == pytest.approx(
        [0.9, 0.2]
    )
    assert len(filter_detections(found, 0.95, set())) == 0


def test_what_was_found_is_drawn_in_the_colour_of_its_stream(found: Detections, taxonomy: Taxonomy) -> None:
    """Class and score in words, the stream as a colour."""
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


def test_ground_truth_is_dashed_and_told_by_stream(taxonomy: Taxonomy) -> None:
    """Two of a kind are counted, an empty frame is called one."""
    ids = np.array([taxonomy.id_of[name] for name in ("Drink can", "Shoe", "Drink can", "Glass jar")])
    labels = Labels(np.ones((4, 4)), ids, np.zeros(4, bool))
    assert {overlay.line for overlay in label_overlays(labels, taxonomy)} == {"dashed"}
    assert describe_labels(labels, taxonomy) == "**recycling**: 2 × Drink can, Glass jar; **special**: Shoe"
    assert (
        describe_labels(Labels(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, bool)), taxonomy)
        == "an empty bin"
    )
