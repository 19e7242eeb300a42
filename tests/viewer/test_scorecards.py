"""The tables of the scorecards hold the numbers that evaluation wrote."""

from pathlib import Path

import pytest

from evaluation import Scorecard
from viewer.scorecards import (
    bins_score,
    class_rows,
    comparable,
    describe_measurement,
    describe_scores,
    model_rows,
    read_scorecards,
    stream_rows,
)


@pytest.fixture
def cards(build: Path) -> dict[str, Scorecard]:
    """The three scorecards that evaluation wrote."""
    found, errors = read_scorecards(build / "scorecards")
    assert errors == []
    return found


def test_missing_and_damaged_scorecards_are_reported_and_the_others_are_read(
    build: Path, tmp_path: Path
) -> None:
    """One scorecard is good, one is damaged and one is missing."""
    (tmp_path / "ssd_int8.json").write_bytes((build / "scorecards/ssd_int8.json").read_bytes())
    (tmp_path / "ssd_float.json").write_text("{}", encoding="utf-8")
    found, errors = read_scorecards(tmp_path)
    assert list(found) == ["ssd_int8"]
    assert len(errors) == 2
    assert "efficientdet.json: no such scorecard" in errors[0]
    assert all("dvc repro" in error for error in errors)


def test_headline_numbers_are_the_scorecards_in_percent(cards: dict[str, Scorecard]) -> None:
    """Every model has a row; shares are multiplied by 100, seconds by 1000."""
    changed = cards["ssd_int8"].model_copy(
        update={"coco": cards["ssd_int8"].coco | {"ap": 0.12345, "ap50": None}}
    )
    rows = model_rows({"efficientdet": cards["efficientdet"], "ssd_int8": changed})
    assert [row["Model"] for row in rows] == ["EfficientDet-D0", "SSD int8"]
    assert rows[1]["AP"] == 12.35
    assert rows[1]["AP at IoU 0.5"] is None
    assert rows[1]["Latency"] == pytest.approx(1000 * (changed.latency.median_s or 0))
    assert rows[0]["Missed"] == pytest.approx(
        100 * cards["efficientdet"].sorting.missed / cards["efficientdet"].sorting.items, abs=0.01
    )


def test_classes_are_sorted_by_their_number_of_test_boxes(cards: dict[str, Scorecard]) -> None:
    """Classes without test boxes are left out unless they are asked for."""
    rows = class_rows(cards, "ap")
    boxes = [row["Test boxes"] for row in rows]
    assert boxes == sorted(boxes, reverse=True)  # type: ignore[type-var]
    assert min(boxes) > 0  # type: ignore[type-var]
    assert len(class_rows(cards, "ap", untested=True)) == 57
    assert set(rows[0]) == {
        "Class",
        "Stream",
        "Train boxes",
        "Test boxes",
        "EfficientDet-D0",
        "SSD float",
        "SSD int8",
    }


def test_streams_show_accuracy_and_contamination(cards: dict[str, Scorecard]) -> None:
    """Each stream has one row with two numbers per model; the items add up to those of the split."""
    rows = stream_rows(cards)
    assert {row["Stream"] for row in rows} == {"recycling", "organics", "landfill", "special"}
    assert sum(int(row["Test items"] or 0) for row in rows) == cards["ssd_int8"].split.items
    assert len(rows[0]) == 2 + 2 * 3


def test_scorecards_of_other_frames_are_not_comparable(cards: dict[str, Scorecard]) -> None:
    """Scorecards are comparable if the digest of frames and labels is equal; each model has its own sorting
    score.
    """
    assert comparable(cards)
    split = cards["ssd_int8"].split.model_copy(update={"digest": "another"})
    assert not comparable(cards | {"ssd_int8": cards["ssd_int8"].model_copy(update={"split": split})})
    sorting = cards["ssd_int8"].sorting.model_copy(update={"score": 0.5})
    changed = cards | {"ssd_int8": cards["ssd_int8"].model_copy(update={"sorting": sorting})}
    assert comparable(changed)
    assert bins_score(changed) == 0.5, "the confidence slider begins where bins act"
    assert bins_score({}) is None
    assert "SSD int8 0.5, given in params.yaml" in describe_scores(changed)


def test_the_description_names_the_frames_and_the_machine(cards: dict[str, Scorecard]) -> None:
    """The line says on how many frames and on which CPU the numbers were measured."""
    line = describe_measurement(cards)
    assert "4 test frames" in line
    assert cards["efficientdet"].latency.cpu in line
