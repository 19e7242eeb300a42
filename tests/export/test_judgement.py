"""Candidates are judged against the champions: what is written, what is used, and when it is due again.

The files in this store are names of detectors that know the frames and err as told, so that the verdicts are
known; real files are judged by the tests of the flows.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.support.memory_store import MemoryStore
from dataset import GateSet
from export import (
    Candidate,
    GateCriteria,
    compare_candidates,
    compare_judgements,
    frames_wanted,
    judge_candidate,
    judgement_due,
    load_champion,
    load_judgement,
    override,
    publish_candidate,
)
from trashnet.errors import UserError
from trashnet.models import TEACHER


def publish(
    store: MemoryStore, folder: Path, detector: str, number: int, turns: Sequence[str] = ()
) -> Candidate:
    """A candidate of this dataset number, trained on these turns, whose teacher is this detector."""
    path = folder / TEACHER.file
    path.write_text(f"{detector} of {number}")
    models, dataset = {TEACHER.file: path}, f"data-{number:05}"
    return publish_candidate(
        store, models, {}, dataset=dataset, turns=tuple(turns), commit="c0ffee", scores={}
    )


def in_use(store: MemoryStore) -> str | None:
    """The teacher's version."""
    champion = load_champion(store, "teacher")
    return champion and champion.version


def test_what_passes_is_used_and_what_does_not_is_not(criteria: GateCriteria, tmp_path: Path) -> None:
    """An untrained one does not reach the minima; a fair one does, a good one is better, a fair one worse."""
    store = MemoryStore()
    untrained = publish(store, tmp_path, "untrained", 1)
    assert judge_candidate(store, untrained, criteria).outcome == "blocks"
    assert in_use(store) is None
    fair, good = publish(store, tmp_path, "fair", 2), publish(store, tmp_path, "good", 3)
    assert judge_candidate(store, fair, criteria).outcome == "passes"
    assert judge_candidate(store, good, criteria).outcome == "passes"
    assert in_use(store) == good.version
    worse = publish(store, tmp_path, "fair", 4)
    judgement = judge_candidate(store, worse, criteria)
    assert (judgement.outcome, judgement.models["teacher"].champion) == ("blocks", good.version)
    assert in_use(store) == good.version


def test_a_judgement_is_kept_with_a_page(criteria: GateCriteria, tmp_path: Path) -> None:
    """It names the gate set, the rivals and every finding; the page shows frames of what decided."""
    store = MemoryStore()
    judge_candidate(store, publish(store, tmp_path, "good", 1), criteria)
    worse = publish(store, tmp_path, "fair", 2)
    judgement = judge_candidate(store, worse, criteria)
    assert load_judgement(store, worse.version) == judgement
    assert (judgement.gate_set, judgement.frames) == ("gate-00001", {"exploration": 60})
    [page] = [store.get(one.key).decode() for one in store.list("models/") if one.key.endswith(".html")][-1:]
    for reason in judgement.models["teacher"].verdict.reasons:
        assert reason in judgement.markdown()
    assert "blocks" in page
    assert "data:image/jpeg;base64," in page


def test_a_candidate_is_judged_once_and_again_when_it_was_held_and_the_gate_set_grew(
    criteria: GateCriteria, tmp_path: Path
) -> None:
    """One that a person put into use without a judgement is left alone."""
    store, name = MemoryStore(), criteria.gate_set.version
    assert not judgement_due(store, lambda: name)
    first = publish(store, tmp_path, "fair", 1)
    override(store, first.version, ["teacher"], by="ann", reason="to begin with")
    assert not judgement_due(store, lambda: name)
    second = publish(store, tmp_path, "good", 2)
    assert judgement_due(store, lambda: name)
    nothing = GateSet("gate-00000", criteria.gate_set.frames[:0], (), {})
    assert judge_candidate(store, second, replace(criteria, gate_set=nothing)).outcome == "holds"
    assert not judgement_due(store, lambda: "gate-00000")
    assert frames_wanted(store) > 0
    assert judgement_due(store, lambda: name)
    again = judge_candidate(store, second, criteria)
    assert again.outcome == "passes", again.markdown()
    assert frames_wanted(store) == 0
    assert not judgement_due(store, lambda: "gate-00009")


def test_two_candidates_are_compared_without_consequences(criteria: GateCriteria, tmp_path: Path) -> None:
    """`trashnet gate A B` says what the gate would say; nothing is written and nothing is used."""
    store = MemoryStore()
    good, fair = publish(store, tmp_path, "good", 1), publish(store, tmp_path, "fair", 2)
    before = sorted(one.key for one in store.list(""))
    assert compare_candidates(store, fair, good, criteria).outcome == "blocks"
    assert compare_candidates(store, good, fair, criteria).outcome == "passes"
    assert sorted(one.key for one in store.list("")) == before
    assert in_use(store) is None


def test_a_damaged_judgement_says_what_to_do(criteria: GateCriteria, tmp_path: Path) -> None:
    """The message names the object."""
    store = MemoryStore()
    candidate = publish(store, tmp_path, "good", 1)
    store.put(f"models/{candidate.version}/judgements/20261126T000000.json", b"{}")
    with pytest.raises(UserError, match="is not a judgement"):
        load_judgement(store, candidate.version)


def test_two_judgements_of_one_gate_set_stand_side_by_side(criteria: GateCriteria, tmp_path: Path) -> None:
    """Both outcomes and their sentences; that their champions differ is said."""
    store = MemoryStore()
    fair, good = (publish(store, tmp_path, name, number) for number, name in enumerate(("fair", "good"), 1))
    judged = [judge_candidate(store, candidate, criteria) for candidate in (fair, good)]
    table = compare_judgements(*judged)
    assert f"| teacher | {fair.version} | {good.version} |" in table
    assert "| the gate | passes | passes |" in table
    assert "compared with different champions" in table


def test_across_a_version_step_two_judgements_are_refused_with_a_sentence(
    criteria: GateCriteria, tmp_path: Path
) -> None:
    """It names both candidates, both versions of the gate set, and the command that judges on one; likewise
    where frames left the same version.
    """
    store, grown = MemoryStore(), replace(criteria.gate_set, version="gate-00002")
    fewer = GateSet("gate-00001", criteria.gate_set.frames[:50], ("exploration",) * 50, {})
    fair, good = (publish(store, tmp_path, name, number) for number, name in enumerate(("fair", "good"), 1))
    first = judge_candidate(store, fair, replace(criteria, gate_set=fewer))
    second = judge_candidate(store, good, replace(criteria, gate_set=grown))
    with pytest.raises(UserError, match=r"on gate set gate-00001, candidate .* on gate-00002") as raised:
        compare_judgements(first, second)
    assert f"`trashnet gate {good.version} {fair.version}` judges both" in str(raised.value)
    third = judge_candidate(store, good, criteria)
    with pytest.raises(UserError, match="both judged on gate set gate-00001, but frames left it"):
        compare_judgements(first, third)
