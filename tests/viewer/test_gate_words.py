"""The sentences of the page "Gate"."""

from datetime import UTC, datetime

import pytest

from evaluation.gate import Finding, GateParams, SliceResult, Verdict
from export import Candidate, ChampionChange, Judgement
from export.champions import Decision
from export.judgement import ModelJudgement
from viewer import gate_words

AT = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)
CANDIDATE = Candidate(
    version="00002-b", published_at=AT, dataset="data-00002", turns=(), commit="c", files={}, scores={}
)


def change(decision: Decision, previous: str | None = "00001-a") -> ChampionChange:
    """A change of the teacher."""
    return ChampionChange(
        role="teacher",
        version="00002-b",
        previous=previous,
        decision=decision,
        by="ann",
        reason="bins need it [now]",
        at=AT,
    )


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("passed", "because it passed the gate, instead of 00001\\-a"),
        ("override", "because ann overrode the gate, instead of 00001\\-a"),
        ("rollback", "because ann rolled back, instead of 00001\\-a"),
    ],
)
def test_a_champion_says_since_when_and_why(decision: Decision, words: str) -> None:
    """The reason that a person gave stands there as it was written."""
    said = gate_words.describe_champion("teacher", CANDIDATE, change(decision))
    assert words in said
    assert "2026-11-27 08:30 UTC" in said
    assert "bins need it \\[now\\]" in said


def test_a_first_champion_and_one_of_before_the_gate_have_sentences_too() -> None:
    """Nothing is said that is not known."""
    assert "No student is in use yet" in gate_words.describe_champion("student", None, None)
    assert "before there was a gate" in gate_words.describe_champion("student", CANDIDATE, None)
    first = gate_words.describe_champion("teacher", CANDIDATE, change("override", None))
    assert "instead of" not in first


def test_changes_are_listed_the_latest_first() -> None:
    """With who and why."""
    rows = gate_words.change_rows([change("override", None), change("rollback")])
    assert [row["How"] for row in rows] == ["rollback", "override"]
    assert rows[1]["Before"] == "none"
    assert rows[0]["Reason"] == "bins need it [now]"


def test_a_verdict_that_holds_says_how_many_frames_would_decide() -> None:
    """600 in all would: with 20 there are 580 to come. Findings that decided come first."""
    passing = Finding(
        test="check", against="limit", name="Size", outcome="passes", estimate=1, limit=2, sentence="Small."
    )
    thin = passing.model_copy(
        update={"test": "utility", "outcome": "holds", "frames_needed": 600, "sentence": "Too few."}
    )
    verdict = Verdict(
        outcome="holds",
        findings=(passing, thin),
        slices={},
        watch={},
        frames=20,
        groups=20,
        items=31,
        params=GateParams(),
    )
    judgement = Judgement(
        challenger="00002-b",
        at=AT,
        gate_set="gate-00001",
        digest="d",
        frames={"import": 12, "exploration": 8},
        models={"teacher": ModelJudgement(champion="00001-a", best=None, verdict=verdict)},
    )
    said = gate_words.describe_judgement(judgement, verdict)
    assert "20 frames (8 exploration, 12 import)" in said
    assert "About 580 exploration frames more would decide" in said
    headline = gate_words.headline("teacher", verdict, "00001-a")
    assert headline.startswith(
        "**The gate holds the teacher** (against candidate 00001\\-a): 1 of 2 findings"
    )
    assert "31 items in 20 frames of 20 groups" in headline
    assert gate_words.finding_lines(verdict) == [
        ":orange-badge[holds] Too few.",
        ":green-badge[passes] Small.",
    ]


def test_slices_are_rows_with_points_of_100() -> None:
    """A small one says why it was not tested."""
    tested = SliceResult(kind="class", name="Cup", boxes=40, groups=20, gain=-0.125, p=0.00312)
    small = SliceResult(kind="tail", name="special", boxes=3, groups=2, gain=0, p=None, watched="3 boxes")
    rows = gate_words.slice_rows([tested, small])
    assert [row["Slice"] for row in rows] == ["class Cup", "rare classes of stream special"]
    assert (rows[0]["Points more right"], rows[0]["p of a loss"]) == (-12.5, 0.0031)
    assert rows[1]["Not tested because"] == "3 boxes"
