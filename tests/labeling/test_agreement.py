"""Agreement between annotators, against arithmetic done by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from labeling import annotator_agreement
from labeling.agreement import label_agreement
from trashnet.boxes import Box
from trashnet.ledger import AnnotationRow, FrameRow, Ledger, open_ledger


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """In memory; three frames, ``a``, ``b`` and ``c``."""
    made = open_ledger("sqlite:///:memory:")
    for name in "abc":
        made.add(
            FrameRow(
                sha256=name * 64,
                uploaded_sha256=name * 64,
                state="tasked",
                inbox_key=name,
                width=100,
                height=100,
            )
        )
    yield made
    made.close()


def record(
    ledger: Ledger, number: int, frame: str, person: str, *boxes: tuple[str, float], outcome: Any = "boxes"
) -> None:
    """Record an annotation with boxes of 10 × 10 pixels at x, by class."""
    row = AnnotationRow(
        annotation_id=number,
        task_id=1,
        sha256=frame * 64,
        annotator=person,
        labelled_at=datetime(2026, 11, 1, tzinfo=UTC).replace(minute=number),
        outcome=outcome,
        boxes=tuple(Box(label, x, 0, 10, 10) for label, x in boxes),
    )
    ledger.record_annotations(row.sha256, [row], finished=False)


def test_agreement_of_two_people_by_hand(ledger: Ledger) -> None:
    """Frame a: ada has can 0, can 30, shoe 60; ben has can 0 (IoU 1), shoe 32 (IoU 8/12 = 2/3), nothing else.

    5 boxes, 4 matched (2 pairs), mean IoU (1 + 2/3) / 2 = 5/6, same label 2 of 4. can: 3 boxes, 3 matched (2
    of the first pair, 1 of the second), mean IoU (1 + 1 + 2/3) / 3 = 8/9, same 2 of 3. shoe: 2 boxes, 1
    matched, IoU 2/3, same 0 of 1.
    """
    record(ledger, 1, "a", "ada", ("can", 0), ("can", 30), ("shoe", 60))
    record(ledger, 2, "a", "ben", ("can", 0), ("shoe", 32))
    found = annotator_agreement(ledger)
    assert found.frames == 1
    for tally in (found.overall, found.people["ada", "ben"]):
        assert (tally.boxes, tally.matched, tally.same) == (5, 4, 2)
        assert (tally.matched_share, tally.mean_iou, tally.label_agreement) == pytest.approx(
            (4 / 5, 5 / 6, 1 / 2)
        )
    can, shoe = found.classes["can"], found.classes["shoe"]
    assert (can.boxes, can.matched_share, can.mean_iou, can.label_agreement) == pytest.approx(
        (3, 1, 8 / 9, 2 / 3)
    )
    assert (shoe.boxes, shoe.matched_share, shoe.mean_iou, shoe.label_agreement) == pytest.approx(
        (2, 1 / 2, 2 / 3, 0)
    )


def test_each_pair_of_three_people_counts(ledger: Ledger) -> None:
    """Three people with the same box are three pairs: 6 boxes."""
    for number, person in enumerate(("ada", "ben", "cleo")):
        record(ledger, number, "a", person, ("can", 0))
    found = annotator_agreement(ledger)
    assert set(found.people) == {("ada", "ben"), ("ada", "cleo"), ("ben", "cleo")}
    assert (found.overall.boxes, found.overall.matched, found.overall.mean_iou) == (6, 6, 1)


def test_only_usable_answers_of_different_people_are_compared(ledger: Ledger) -> None:
    """A skipped or refused answer does not count, and of one person only the newest counts."""
    record(ledger, 1, "a", "ada", ("can", 0))
    record(ledger, 2, "a", "ada", ("can", 50))
    record(ledger, 3, "a", "ben", outcome="skipped")
    record(ledger, 4, "b", "ada", ("can", 0))
    record(ledger, 5, "b", "ben", ("can", 0), outcome="refused")
    assert annotator_agreement(ledger).frames == 0
    record(ledger, 6, "a", "ben", ("can", 50))
    assert annotator_agreement(ledger).overall.label_agreement == 1


def test_nothing_against_boxes_is_disagreement(ledger: Ledger) -> None:
    """A frame in which both people found nothing counts as a frame without boxes."""
    record(ledger, 1, "a", "ada", outcome="nothing")
    record(ledger, 2, "a", "ben", ("can", 0))
    record(ledger, 3, "b", "ada", outcome="nothing")
    record(ledger, 4, "b", "ben", outcome="nothing")
    found = annotator_agreement(ledger)
    assert (found.frames, found.overall.boxes, found.overall.matched_share, found.overall.mean_iou) == (
        2,
        1,
        0,
        None,
    )


def test_the_table_prints_what_was_counted(ledger: Ledger) -> None:
    """One line for all, one per pair of people, one per class; a dash where there is nothing to divide by."""
    assert annotator_agreement(ledger).table() == "No frame has been answered by two people yet."
    record(ledger, 1, "a", "ada", ("can", 0), ("can", 30), ("shoe", 60))
    record(ledger, 2, "a", "ben", ("can", 0), ("can", 32))
    assert annotator_agreement(ledger).table().splitlines() == [
        "1 frame answered by two people",
        "              boxes  matched  mean IoU  same label",
        "all               5     80 %     0.833       100 %",
        "ada and ben       5     80 %     0.833       100 %",
        "can               4    100 %     0.833       100 %",
        "shoe              1      0 %         –           –",
    ]


def test_label_agreement_by_hand() -> None:
    """Three boxes against two, two pairs, one of them with the same label: 2 * 1 / (3 + 2)."""
    a = [Box("Battery", 0, 0, 10, 10), Box("Battery", 100, 0, 10, 10), Box("Shoe", 200, 0, 10, 10)]
    b = [Box("Battery", 0, 0, 10, 10), Box("Shoe", 100, 0, 10, 10)]
    assert label_agreement(a, b, 0.5) == pytest.approx(0.4)
    assert label_agreement([], [], 0.5) == 1.0
    assert label_agreement(a, [], 0.5) == 0.0
