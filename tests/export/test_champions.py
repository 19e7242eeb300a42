"""Champions in a real object store: what is in use, who decided that, and what cannot change it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.support.memory_store import MemoryStore
from export import (
    Candidate,
    last_change,
    list_champion_changes,
    load_best_champion,
    load_champion,
    load_newest_candidate,
    override,
    promote,
    publish_candidate,
    roll_back,
)
from trashnet.errors import UserError
from trashnet.models import ROLES, STUDENT, TEACHER, Role
from trashnet.store import ObjectStore, StoreDown


def publish(
    store: Any, folder: Path, number: int, files: tuple[str, ...] = (TEACHER.file, STUDENT.file)
) -> Candidate:
    """Publish a candidate of this dataset number, with these files."""
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).write_bytes(f"{name} of {number}".encode())
    models = {name: folder / name for name in files}
    dataset = f"data-{number:05}"
    return publish_candidate(store, models, {}, dataset=dataset, turns=(), commit="c0ffee", scores={})


def in_use(store: Any) -> dict[Role, str | None]:
    """The versions of the champions."""
    champions = {role: load_champion(store, role) for role in ROLES}
    return {role: champion and champion.version for role, champion in champions.items()}


def test_a_published_candidate_is_in_use_once_the_gate_lets_it_through(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Published it is the newest and nothing more; each of its models has a gate of its own."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    assert load_newest_candidate(store) == second
    assert in_use(store) == {"teacher": None, "student": None}
    promote(store, first, "teacher", "it meets the minima")
    promote(store, first, "student", "it meets the minima")
    promote(store, second, "student", "no worse")
    assert in_use(store) == {"teacher": first.version, "student": second.version}
    change = last_change(store, "student")
    assert change is not None
    assert (change.previous, change.decision, change.by, change.reason) == (
        first.version,
        "passed",
        "the gate",
        "no worse",
    )


def test_the_gate_only_goes_forward(store: ObjectStore, tmp_path: Path) -> None:
    """An older candidate that is judged late, or the same one again, changes nothing."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    assert promote(store, second, "student", "no worse")
    assert promote(store, second, "student", "no worse") is None
    assert promote(store, first, "student", "no worse") is None
    assert in_use(store)["student"] == second.version
    assert len(list_champion_changes(store)) == 1


def test_a_rollback_holds_until_the_gate_lets_a_later_candidate_through(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Who, when and why stay in the store; judging the same or an older candidate again undoes nothing."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    for candidate in (first, second):
        for role in ROLES:
            promote(store, candidate, role, "no worse")
    changes = roll_back(store, first.version, by="ann", reason="takes cups for cans")
    assert [(one.role, one.version, one.previous, one.by) for one in changes] == [
        (role, first.version, second.version, "ann") for role in ROLES
    ]
    assert in_use(store) == dict.fromkeys(ROLES, first.version)
    assert promote(store, second, "student", "no worse") is None
    assert last_change(store, "student") == changes[1]
    third = publish(store, tmp_path, 3)
    assert promote(store, third, "student", "no worse")
    assert in_use(store) == {"teacher": first.version, "student": third.version}


def test_the_best_champion_stays_until_another_is_no_worse(store: ObjectStore, tmp_path: Path) -> None:
    """One that is let through although it is a little worse is in use, and is not what others must reach."""
    first, second, third = (publish(store, tmp_path, number) for number in (1, 2, 3))
    assert load_best_champion(store, "student") is None
    promote(store, first, "student", "it meets the minima")
    promote(store, second, "student", "worse by less than the margin", is_best=False)
    assert in_use(store)["student"] == second.version
    assert load_best_champion(store, "student") == first
    roll_back(store, first.version, ["student"], by="ann", reason="why")
    promote(store, third, "student", "better", is_best=True)
    assert load_best_champion(store, "student") == third


def test_a_person_may_override_the_gate_for_one_model(store: ObjectStore, tmp_path: Path) -> None:
    """The reason is kept, and what is taken counts as the furthest: the gate does not go behind it."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    promote(store, first, "teacher", "it meets the minima")
    [change] = override(store, second.version, ["student"], by="ann", reason="a field test")
    assert (change.decision, change.previous, change.reason) == ("override", None, "a field test")
    assert in_use(store) == {"teacher": first.version, "student": second.version}
    assert promote(store, first, "student", "no worse") is None


def test_what_cannot_be_installed_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    """An unknown version, a lost file, what is in use already, no reason, and a model that it lacks."""
    with pytest.raises(UserError, match="there is no candidate"):
        roll_back(store, "00001-0123456789ab", by="ann", reason="why")
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2, (STUDENT.file,))
    promote(store, second, "student", "no worse")
    with pytest.raises(UserError, match="give a reason"):
        roll_back(store, first.version, by="ann", reason=" ")
    with pytest.raises(UserError, match="already"):
        roll_back(store, second.version, by="ann", reason="why")
    with pytest.raises(UserError, match="has no teacher"):
        override(store, second.version, ["teacher"], by="ann", reason="why")
    store.remove(f"models/{first.version}/{STUDENT.file}")
    with pytest.raises(UserError, match=r"has lost ssd_int8\.tflite"):
        roll_back(store, first.version, by="ann", reason="why")
    assert in_use(store) == {"teacher": None, "student": second.version}


def test_a_change_that_died_is_finished_and_recorded_once(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record comes before the pointer that it explains, and counts only once the pointer agrees."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    promote(store, second, "student", "no worse")
    before, real = last_change(store, "student"), store.put_if_unchanged

    def dies(key: str, *rest: Any) -> bool:
        if key == "models/champion.json":
            raise StoreDown("down")
        return real(key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_if_unchanged", dies)
        with pytest.raises(StoreDown):
            roll_back(store, first.version, ["student"], by="ann", reason="why")
    assert in_use(store)["student"] == second.version
    assert before is not None
    roll_back(store, first.version, ["student"], by="ann", reason="why")
    assert in_use(store)["student"] == first.version
    assert len(list_champion_changes(store)) == 2


def test_in_a_store_from_before_the_gate_what_bins_got_is_in_use(store: ObjectStore, tmp_path: Path) -> None:
    """Also after a rollback of that time, and publishing another candidate does not forget it."""
    first, second = publish(store, tmp_path, 1), publish(store, tmp_path, 2)
    pointer = {"version": first.version, "furthest": second.version}
    store.put("models/newest.json", json.dumps(pointer).encode())
    assert in_use(store) == dict.fromkeys(ROLES, first.version)
    assert load_newest_candidate(store) == second
    third = publish(store, tmp_path, 3)
    assert load_newest_candidate(store) == third
    assert in_use(store) == dict.fromkeys(ROLES, first.version)
    assert promote(store, second, "student", "no worse") is None


def test_a_damaged_pointer_says_what_to_do(store: ObjectStore, tmp_path: Path) -> None:
    """Nothing is guessed: which models are in use is not to be read off the candidates."""
    publish(store, tmp_path, 1)
    store.put("models/champion.json", b"[]")
    with pytest.raises(UserError, match=r"champion\.json is damaged; restore it"):
        load_champion(store, "student")


@given(
    st.lists(st.tuples(st.sampled_from(["promote", "override", "rollback"]), st.integers(1, 4)), max_size=12)
)
@settings(max_examples=60, deadline=None)
def test_only_a_person_goes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever the order of decisions, the gate never moves a champion to a candidate before the furthest."""
    store, folder = MemoryStore(), tmp_path_factory.mktemp("models")
    candidates = {number: publish(store, folder, number) for number in range(1, 5)}
    current = furthest = 0
    for decision, number in steps:
        candidate = candidates[number]
        if decision == "promote":
            promote(store, candidate, "student", "no worse")  # type: ignore[arg-type]
            current = number if number > furthest else current
        elif number != current:
            decide = override if decision == "override" else roll_back
            decide(store, candidate.version, ["student"], by="ann", reason="why")  # type: ignore[arg-type]
            current = number
        furthest = max(furthest, current)
        assert in_use(store)["student"] == (candidates[current].version if current else None)
