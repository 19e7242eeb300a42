"""Scorecards beside each other: what the tables hold is what evaluation wrote."""

from pathlib import Path

import pytest

from evaluation import Scorecard
from viewer.scorecards import (
    class_rows,
    comparable,
    describe_measurement,
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


def test_what_is_missing_or_damaged_is_said_and_the_rest_is_read(build: Path, tmp_path: Path) -> None:
    """One good, one damaged, one missing."""
    (tmp_path / "ssd_int8.json").write_bytes((build / "scorecards/ssd_int8.json").read_bytes())
    (tmp_path / "ssd_float.json").write_text("{}", encoding="utf-8")
    found, errors = read_scorecards(tmp_path)
    assert list(found) == ["ssd_int8"]
    assert len(errors) == 2
    assert "efficientdet.json: no such scorecard" in errors[0]
    assert all("dvc repro" in error for error in errors)


def test_headline_numbers_are_the_scorecards_in_percent(cards: dict[str, Scorecard]) -> None:
    """Every model in its row; shares times 100, seconds times 1000."""
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


def test_classes_come_with_their_test_boxes_the_most_first(cards: dict[str, Scorecard]) -> None:
    """Classes nobody tested say nothing and are left out unless asked for."""
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


def test_streams_show_what_arrives_and_how_clean_it_is(cards: dict[str, Scorecard]) -> None:
    """One row per stream, two numbers per model, and the items add up."""
    rows = stream_rows(cards)
    assert {row["Stream"] for row in rows} == {"recycling", "organics", "landfill", "special"}
    assert sum(int(row["Test items"] or 0) for row in rows) == cards["ssd_int8"].split.items
    assert len(rows[0]) == 2 + 2 * 3


def test_scorecards_of_other_frames_are_not_comparable(cards: dict[str, Scorecard]) -> None:
    """The digest of the frames and labels decides, and the sorting score."""
    assert comparable(cards)
    split = cards["ssd_int8"].split.model_copy(update={"digest": "another"})
    assert not comparable(cards | {"ssd_int8": cards["ssd_int8"].model_copy(update={"split": split})})
    sorting = cards["ssd_int8"].sorting.model_copy(update={"score": 0.5})
    assert not comparable(cards | {"ssd_int8": cards["ssd_int8"].model_copy(update={"sorting": sorting})})


def test_the_facts_name_the_frames_and_the_machine(cards: dict[str, Scorecard]) -> None:
    """Numbers without their origin are no use."""
    line = describe_measurement(cards)
    assert "4 test frames" in line
    assert cards["efficientdet"].latency.cpu in line
