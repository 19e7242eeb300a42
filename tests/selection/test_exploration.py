"""Random exploration: its debt is carried, no score chooses from it, and queued frames count as selected."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from selection import SelectionParams, sample_frames
from selection.sampling import exploration_due, is_held_out, select_diverse
from trashnet.ledger import FrameRow, FrameScore, Ledger, ScoredFrame, open_ledger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def enter(ledger: Ledger, numbers: range, reason: str | None, bins: int = 10) -> list[str]:
    """Accepted frames of several bins with scores, as ranking leaves them; their SHA-256s."""
    shas = [f"{number * 7919 % 2**32:08x}{number:056x}" for number in numbers]
    for number, sha in zip(numbers, shas, strict=True):
        upload = "exploration" if reason == "exploration" else "model" if reason else None
        ledger.add(
            FrameRow(
                sha256=sha,
                uploaded_sha256=sha,
                state="accepted",
                inbox_key="",
                bin_id=f"bin{number % bins}",
                burst=f"b{number}",
                captured_at=NOON,
                upload_reason=upload,  # type: ignore[arg-type]
                descriptor=bytes([number % 256] * 192),
            )
        )
    ledger.save_scores([FrameScore(sha, 0.5, "why", None, "m1") for sha in shas])
    return shas


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]))
def test_after_any_rooms_the_share_of_all_tasks_was_explored(rooms: list[int], share: float) -> None:
    """After rooms of 5, 5, ... a tenth of all is due, rounded down once and not in every room."""

    class Counted:
        """A ledger that knows how many tasks were made, and nothing else."""

        def __init__(self) -> None:
            self.made = 0

        def tasks_made(self) -> int:
            return self.made

    ledger, explored = Counted(), 0
    params = SelectionParams(exploration_share=share)
    for room in rooms:
        due = exploration_due(ledger, params, room)  # type: ignore[arg-type]
        assert 0 <= due <= room
        explored, ledger.made = explored + due, ledger.made + room
    assert explored == int(sum(rooms) * round(share * 100)) // 100


def test_ten_rooms_of_five_explore_five_frames(ledger: Ledger) -> None:
    """0.1 * 50 = 5, though 0.1 of each room is less than one; each drawn frame is one uploaded at random."""
    enter(ledger, range(200), "unsure")
    at_random = set(enter(ledger, range(200, 260), "exploration"))
    explored: list[str] = []
    for room in range(10):
        sampled = sample_frames(ledger, SelectionParams(bin_share=1), seed=room, count=5)
        rows = [ledger.frame(sha) for sha in sampled]
        explored += [row.sha256 for row in rows if row and row.selected_by == "exploration"]
        ledger.mark_tasked({sha: 100 * room + i for i, sha in enumerate(sampled)})
    assert ledger.tasks_made() == 50
    assert len(explored) == 5
    assert set(explored) <= at_random


def test_no_score_chooses_a_frame_that_was_uploaded_at_random(ledger: Ledger) -> None:
    """It gets none, so the pool of those that are left stays a fair sample."""
    enter(ledger, range(30), "unsure")
    at_random = enter(ledger, range(30, 60), "exploration")
    assert {row.score for sha in at_random if (row := ledger.frame(sha))} == {None}
    params = SelectionParams(exploration_share=0.2, bin_share=1)
    rows = [ledger.frame(sha) for sha in sample_frames(ledger, params, seed=1, count=20)]
    chosen = Counter((row.upload_reason, row.selected_by) for row in rows if row)
    assert chosen == {("exploration", "exploration"): 4, ("model", "score"): 16}


def test_frames_uploaded_at_random_fill_a_room_that_others_leave_empty(ledger: Ledger) -> None:
    """A fleet without a model uploads nothing else: all are drawn at random, none twice."""
    enter(ledger, range(30), "exploration")
    sampled = sample_frames(ledger, SelectionParams(bin_share=1), seed=1, count=20)
    assert len(set(sampled)) == 20
    assert {row.choice.origin for sha in sampled if (row := ledger.frame(sha))} == {"exploration"}


def test_without_any_others_are_drawn_and_are_no_test_material(ledger: Ledger) -> None:
    """As before version 0.4: at random from all; but why they were uploaded is no fair sample."""
    enter(ledger, range(30), None)
    params = SelectionParams(exploration_share=0.5, bin_share=1)
    rows = [ledger.frame(sha) for sha in sample_frames(ledger, params, seed=1, count=10)]
    assert Counter(row.selected_by for row in rows if row) == {"exploration": 5, "score": 5}
    assert not any(row.choice.is_random for row in rows if row)


def test_of_a_held_out_bin_only_frames_at_random_are_asked_about(ledger: Ledger) -> None:
    """No score and no other draw takes any; those at random say for what they are."""
    enter(ledger, range(40), "unsure", bins=2)
    enter(ledger, range(40, 60), "exploration", bins=2)
    params = SelectionParams(exploration_share=0.5, bin_share=1, held_out_bins=("bin1",))
    rows = [ledger.frame(sha) for sha in sample_frames(ledger, params, seed=1, count=20)]
    chosen = Counter((row.bin_id, row.upload_reason, row.selected_by) for row in rows if row)
    assert {key for key in chosen if key[0] == "bin1"} == {("bin1", "exploration", "held_out")}
    assert chosen["bin0", "model", "score"] == 10


def test_a_hash_holds_out_about_the_share_of_bins_and_always_the_same() -> None:
    """Of 2,000 bins 5 % are 100: within four standard deviations, sqrt(2000 * 0.05 * 0.95) = 9.7."""
    params = SelectionParams(held_out_share=0.05)
    held = [name for name in map("bin{}".format, range(2000)) if is_held_out(name, params)]
    assert 61 <= len(held) <= 139
    assert not is_held_out(None, params)


def test_frames_that_wait_as_tasks_count_as_selected() -> None:
    """Level 10 is queued: a (level 10) is like it and gains 0, so c (level 200, a lower score) is first."""
    frames = [ScoredFrame("a", 1.0, None, bytes([10] * 192)), ScoredFrame("c", 0.1, None, bytes([200] * 192))]
    params = SelectionParams()
    assert select_diverse(frames, Counter(), 1, params) == ["a"]
    assert select_diverse(frames, Counter(), 1, params, None, [bytes([10] * 192)]) == ["c"]


def test_the_queue_is_read_from_the_ledger(tmp_path: object) -> None:
    """The descriptors of tasked frames, and of no other."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/queue.sqlite")
    shas = enter(ledger, range(3), "unsure")
    ledger.mark_tasked({shas[1]: 1})
    assert ledger.queued_descriptors() == [bytes([1] * 192)]
    ledger.close()


def test_while_the_gate_lacks_evidence_more_is_drawn_at_random() -> None:
    """The greater of both shares holds; nothing else changes."""
    params = SelectionParams(exploration_share=0.1, exploration_share_on_hold=0.4)
    assert params.on_hold() == SelectionParams(exploration_share=0.4, exploration_share_on_hold=0.4)
    assert SelectionParams(exploration_share=0.7).on_hold().exploration_share == 0.7
