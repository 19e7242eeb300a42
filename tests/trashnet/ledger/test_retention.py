"""What retention writes: histories are thinned out, rows let go of objects, and removals are counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from tests.trashnet.ledger.inspection import history
from trashnet.ledger import ExpiredRefusal, FrameRow, Ledger, Removal, State
from trashnet.ledger.tables import frames, transitions
from trashnet.retention import RetentionParams, describe_removals, thin_out_transitions

LONG_AGO = datetime(2024, 3, 1, 12, tzinfo=UTC)
NOW = LONG_AGO + timedelta(days=400)
PARAMS = RetentionParams(transition_days=365)
WAY: tuple[State, ...] = ("accepted", "tasked", "labelled", "released")


def frame(ledger: Ledger, number: int, *states: State, at: datetime = LONG_AGO, **values: Any) -> str:
    """A frame that went from ``received`` to these states, all at this moment."""
    sha = f"{number:064x}"
    given = {"uploaded_sha256": sha, "state": "received", "inbox_key": f"inbox/bin/{sha}.json"} | values
    assert ledger.add(FrameRow(sha256=sha, **given))  # type: ignore[arg-type]
    for before, after in zip((given["state"], *states), states, strict=False):
        assert ledger.move(sha, before, after, note=f"to {after}")  # type: ignore[arg-type]
    with ledger.transaction() as connection:
        connection.execute(update(frames).where(frames.c.sha256 == sha).values(changed_at=at))
        connection.execute(update(transitions).where(transitions.c.sha256 == sha).values(at=at))
    return sha


def ways(ledger: Ledger, sha: str) -> list[tuple[State | None, State]]:
    """Where a frame came from and went, as far as the ledger still tells."""
    return [(before, after) for before, after, _, _ in history(ledger, sha)]


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        # Settled: how it came (0), and how it got where it is.
        (WAY, [0, 4]),
        (("duplicate",), [0, 1]),
        # Settled, and something happened since: that as well.
        ((*WAY, "labelled", "released", "released"), [0, 6, 7]),
        (("quarantined", "quarantined", "quarantined"), [0, 1, 3]),
        # Not settled: everything.
        (WAY[:1], [0, 1]),
        (WAY[:2], [0, 1, 2]),
        (WAY[:3], [0, 1, 2, 3]),
        # Forgotten: whoever asked for it may ask how that went.
        ((*WAY, "withdrawn"), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_settled_frame_keeps_what_answers_why_it_is_there(
    ledger: Ledger, states: tuple[State, ...], kept: list[int]
) -> None:
    """The first transition, the one into its state and the last one; other frames keep all."""
    sha = frame(ledger, 1, *states)
    before = ways(ledger, sha)
    count = len(before) - len(kept)
    removed = [Removal("transitions", count)] if count else []
    assert thin_out_transitions(ledger, PARAMS, NOW, dry_run=True) == removed
    assert ways(ledger, sha) == before
    assert thin_out_transitions(ledger, PARAMS, NOW) == removed
    assert ways(ledger, sha) == [before[number] for number in kept]
    assert thin_out_transitions(ledger, PARAMS, NOW) == []
    assert ledger.removals() == removed


def test_a_frame_that_settles_later_is_thinned_out_later(ledger: Ledger) -> None:
    """Its old transitions were looked at before it settled; the one that settles it brings it back."""
    sha, other = frame(ledger, 1, *WAY[:2]), frame(ledger, 2, *WAY, at=NOW)
    assert thin_out_transitions(ledger, PARAMS, NOW) == []
    ledger.move(sha, "tasked", "labelled")
    ledger.move(sha, "labelled", "released")
    assert thin_out_transitions(ledger, PARAMS, NOW) == []
    later = datetime.now(UTC) + timedelta(days=366)
    assert thin_out_transitions(ledger, PARAMS, later) == [Removal("transitions", 6)]
    for one in (sha, other):
        assert ways(ledger, one) == [(None, "received"), ("labelled", "released")]


def test_many_pages_count_each_transition_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a page; a dry run says the same as the run."""
    monkeypatch.setattr("trashnet.retention.TRANSITIONS_PER_TRANSACTION", 2)
    for number in range(5):
        frame(ledger, number, *WAY)
    assert thin_out_transitions(ledger, PARAMS, NOW, dry_run=True) == [Removal("transitions", 15)]
    assert thin_out_transitions(ledger, PARAMS, NOW) == [Removal("transitions", 15)]
    assert thin_out_transitions(ledger, RetentionParams(transition_days=None), NOW) == []


def expired(sha: str, **changes: Any) -> ExpiredRefusal:
    """A refused frame whose two objects have 30 bytes and are to go."""
    values: dict[str, Any] = {
        "keys": ("q/a.jpg", "q/a.json"),
        "bytes": 30,
        "what": "quarantine/stray",
        "unchanged_since": NOW,
        "note": "removed",
    }
    return ExpiredRefusal(sha, **values | changes)


def test_a_row_lets_go_of_its_objects_once(ledger: Ledger) -> None:
    """With a transition that says so, and the count of what is removed in the same transaction."""
    sha = frame(ledger, 1, state="quarantined", key="q/a.jpg", quarantine_reason="stray")
    assert ledger.release_objects([expired(sha)]) == {sha}
    row = ledger.frame(sha)
    assert row is not None
    assert (row.state, row.key, row.quarantine_reason) == ("quarantined", None, "stray")
    assert history(ledger, sha)[-1][3] == "removed"
    assert ledger.release_objects([expired(sha)]) == set()
    assert ledger.removals() == [Removal("quarantine/stray", 2, 30)]
    ledger.record_removal(Removal("quarantine/stray", 1, 5))
    ledger.record_removal(Removal("dvc-cache/unused", 1, 5))
    assert ledger.removals() == [Removal("dvc-cache/unused", 1, 5), Removal("quarantine/stray", 3, 35)]


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"state": "received", "key": "q/a.jpg"}, {}),  # healed meanwhile
        ({"state": "quarantined", "key": "q/b.jpg"}, {}),  # names another object
        ({"state": "quarantined", "key": "q/a.jpg"}, {"unchanged_since": LONG_AGO - timedelta(days=1)}),
        ({"state": "withdrawn", "key": "q/a.jpg"}, {}),
    ],
)
def test_a_row_that_changed_meanwhile_keeps_its_objects(
    ledger: Ledger, values: dict[str, Any], changes: dict[str, Any]
) -> None:
    """What was read before the transaction may be wrong by now."""
    sha = frame(ledger, 1, **values)
    before = ledger.frame(sha)
    assert ledger.release_objects([expired(sha, **changes)]) == set()
    assert ledger.frame(sha) == before
    assert ledger.removals() == []


def test_removals_are_told_in_words() -> None:
    """Bytes only where there are any."""
    told = describe_removals([Removal("quarantine/stray", 1200, 2_500_000), Removal("transitions", 7)])
    assert told == ["quarantine/stray: 1,200 (2.5 MB)", "transitions: 7"]
