"""No bin takes more than its share of a turn's tasks, whatever scores and bursts it claims."""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import SelectionParams, sample_frames, task_quotas
from selection.sampling import select_diverse
from trashnet.ledger import EXPLORATION, FrameRow, Ledger, ScoredFrame

PARAMS = SelectionParams()  # at most a tenth of the tasks per bin, and a tenth of them drawn at random


def add(ledger: Ledger, bin_id: str | None, count: int, score: float | None = 0.5, **values: Any) -> None:
    """Accepted frames of a bin, each of a burst of its own and of colours of its own."""
    rows = []
    for number in range(count):
        sha256 = hashlib.sha256(f"{bin_id} {number} {score}".encode()).hexdigest()
        given: dict[str, Any] = {"state": "accepted", "burst": str(number), "model": "t1", "score": score}
        if score is None:
            given["model"] = None
        rows.append(
            FrameRow(
                sha256=sha256,
                uploaded_sha256=sha256,
                inbox_key=f"inbox/{bin_id}/{sha256}.json",
                bin_id=bin_id,
                descriptor=(hashlib.sha256(sha256.encode()).digest() * 6),
                **given | values,
            )
        )
    ledger.upsert_uploads(rows)


def bins(ledger: Ledger, sampled: list[str]) -> Counter[str | None]:
    """How many frames of each bin were sampled."""
    return Counter(row.bin_id for sha256 in sampled if (row := ledger.frame(sha256)))


def test_a_bin_that_claims_high_scores_and_unique_bursts_takes_its_share(ledger: Ledger) -> None:
    """Of 200 tasks its 3,000 frames get 20, although they are the best-scored; 39 honest bins get 180."""
    add(ledger, "hostile", 3000, 1.0)
    for number in range(39):
        add(ledger, f"bin{number:02d}", 10, 0.1)
    sampled = bins(ledger, sample_frames(ledger, PARAMS, 1, 200))
    assert sampled["hostile"] == 20
    assert sampled.total() == 200


def test_a_bin_does_not_get_the_shares_of_bins_that_have_nothing_more(ledger: Ledger) -> None:
    """15 honest frames and 3,000 hostile ones: 35 tasks at first, and none at the second request of the turn.

    16 bins may have a tenth each: of 200 tasks 20, and of 35 that wait and 165 places again 20.
    """
    add(ledger, "hostile", 3000, 1.0)
    for number in range(15):
        add(ledger, f"bin{number:02d}", 1, 0.1)
    sampled = sample_frames(ledger, PARAMS, 1, 200)
    assert bins(ledger, sampled)["hostile"] == 20
    assert len(sampled) == 35
    ledger.mark_tasked({sha256: number for number, sha256 in enumerate(sampled)})
    quotas = task_quotas(ledger, PARAMS, 165)
    assert (quotas.most, quotas.left("hostile")) == (20, 0)
    assert sample_frames(ledger, PARAMS, 1, 165) == []
    assert ledger.count_in_state("accepted") == 3000 - 20  # what is over waits
    days = ledger.bin_days(datetime.now(UTC).date())
    assert {name: day.frames_waiting for name, day in days.items()} == {"hostile": 2980}


def test_the_share_counts_by_the_turn(ledger: Ledger) -> None:
    """Labelled frames count until the dataset has grown by them."""
    for number in range(10):
        add(ledger, f"bin{number}", 30)
    add(ledger, "bin0", 20, 0.6, state="labelled")
    assert task_quotas(ledger, PARAMS, 180).left("bin0") == 0  # (20 + 180) / 10 = 20, all used up
    assert task_quotas(ledger, PARAMS, 200).left("bin0") == 2
    assert bins(ledger, sample_frames(ledger, PARAMS, 1, 180))["bin0"] == 0
    add(ledger, "bin1", 20, 0.6, state="labelled", turn="00002-bins")
    assert task_quotas(ledger, PARAMS, 180).left("bin1") == 20


@pytest.mark.parametrize(("fleet", "share"), [(1, 60), (2, 30), (3, 20), (10, 6), (20, 6)])
def test_a_small_fleet_shares_equally(ledger: Ledger, fleet: int, share: int) -> None:
    """Of 60 tasks a bin may have a tenth, in a fleet of fewer than ten bins an equal part."""
    for number in range(fleet):
        add(ledger, f"bin{number}", 5 if number else 100, 0.1 if number else 0.9)
    sampled = bins(ledger, sample_frames(ledger, PARAMS, 1, 60))
    assert sampled["bin0"] == share


def test_frames_of_no_bin_are_sampled_too(ledger: Ledger) -> None:
    """Rows of old ledgers may lack the bin."""
    add(ledger, None, 20)
    add(ledger, "bin1", 20)
    assert bins(ledger, sample_frames(ledger, PARAMS, 1, 40)) == {None: 20, "bin1": 20}


def test_random_draws_do_not_depend_on_scores(ledger: Ledger) -> None:
    """The same frames are drawn whatever their scores are, and also those that no model has looked at."""
    for number in range(10):
        add(ledger, f"bin{number}", 20, 0.5)
        add(ledger, f"bin{number}", 20, None)
    drawn = ledger.sample_accepted(20, seed=3)
    assert any(row.score is None for sha256 in drawn if (row := ledger.frame(sha256)))
    sampled = sample_frames(ledger, PARAMS, 3, 200)
    rows = [row for sha256 in sampled if (row := ledger.frame(sha256))]
    marked = [row.sha256 for row in rows if str(row.explanation).startswith(EXPLORATION)]
    assert set(marked) == set(drawn)
    assert {row.sha256 for row in rows if row.score is None} <= set(marked)


def test_random_draws_stay_within_the_quota(ledger: Ledger) -> None:
    """A bin that floods is drawn most, and gets no more than its share all the same."""
    add(ledger, "flood", 2000, 0.0)
    for number in range(30):
        add(ledger, f"bin{number:02d}", 2, 0.5)
    params = PARAMS.model_copy(update={"exploration_share": 0.5})
    assert bins(ledger, sample_frames(ledger, params, 1, 50))["flood"] == 5


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.integers(0, 3)), max_size=25),
    left=st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)),
    count=st.integers(0, 30),
)
def test_selection_fills_what_quotas_allow(
    frames: list[tuple[str, float, int]], left: dict[str, int], count: int
) -> None:
    """Whatever is alike, it takes as many as there are within the quotas, none twice, and none over them."""
    scored = [
        ScoredFrame(f"{number:064x}", score, (bin_id, str(level)), bytes([80 * level] * 192), bin_id)
        for number, (bin_id, score, level) in enumerate(frames)
    ]
    of = {frame.sha256: frame.bin_id for frame in scored}
    chosen = select_diverse(scored, Counter(), count, PARAMS, dict(left))
    taken, sent = Counter(of[sha256] for sha256 in chosen), Counter(bin_id for bin_id, *_ in frames)
    assert len(set(chosen)) == len(chosen)
    assert all(taken[bin_id] <= left.get(bin_id or "", 0) for bin_id in taken)
    assert len(chosen) == min(count, sum(min(sent[name], left.get(name, 0)) for name in "abc"))
