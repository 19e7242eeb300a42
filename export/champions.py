"""Champions: the teacher and the student that are in use, each of a candidate of its own.

``models/champion.json`` names them. A candidate's model becomes the champion when the gate lets it through,
and only forward: one that is not beyond the furthest champion there was stays where it is, so judging an
older candidate again changes nothing. A person may decide otherwise, with a reason: an *override* takes a
candidate that the gate held or blocked, a *rollback* an earlier one. A rollback leaves the furthest champion
as it is, so that the gate does not undo it with the same candidate; it does with a later one.

``models/champions.json`` lists every change, who made it and why. It is written before the pointer: if the
process dies between the two, doing the same again finishes it and lists it once. Both are written if
unchanged, see :mod:`export.newest`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from export.candidates import (
    PREFIX,
    Candidate,
    DamagedCandidate,
    Version,
    candidate_key,
    list_candidates,
    load_candidate,
)
from export.newest import read_newest
from export.pointers import JSON_TYPE, MAX_ATTEMPTS, MAX_POINTER_BYTES, contended
from trashnet.errors import UserError
from trashnet.models import MODEL_OF_ROLE, ROLES, Role
from trashnet.store import NoSuchObject, ObjectStore

CHAMPION_KEY = f"{PREFIX}/champion.json"
CHANGES_KEY = f"{PREFIX}/champions.json"
GATE = "the gate"  # who makes a change that no person made

Decision = Literal["passed", "override", "rollback"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Champion(BaseModel):
    """The candidate whose model is in use, the furthest one whose model ever was, and the best one.

    The best one stays until a challenger that is let through is no worse on the same frames: a challenger is
    judged against it too, so that many small losses do not add up.
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    version: Version
    furthest: Version
    best: Version


class Champions(BaseModel):
    """``champion.json``: the champion of each role, ``None`` before the first."""

    model_config = ConfigDict(frozen=True)

    teacher: Champion | None = None
    student: Champion | None = None

    def of(self, role: Role) -> Champion | None:
        """The champion of this role."""
        return self.teacher if role == "teacher" else self.student


class ChampionChange(BaseModel):
    """One change of a champion: what it was before, who decided, when and why."""

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    role: Role
    version: Version
    previous: Version | None
    decision: Decision
    by: Text
    reason: Text
    at: datetime


CHANGES = TypeAdapter(list[ChampionChange])


def load_champion(store: ObjectStore, role: Role) -> Candidate | None:
    """The candidate whose model is in use in this role, ``None`` before the first.

    Raises :class:`UserError` if the pointer or the candidate's manifest is missing or damaged.
    """
    champion = _read_champions(store)[0].of(role)
    if champion is None:
        return None
    candidate = load_candidate(store, champion.version)
    if candidate is None:
        raise DamagedCandidate(
            f"{store}: {CHAMPION_KEY} names {champion.version}, which has no manifest; "
            f"`trashnet rollback VERSION --model {role}` takes another one"
        )
    return candidate


def load_best_champion(store: ObjectStore, role: Role) -> Candidate | None:
    """The best champion that this role ever had, ``None`` before the first and where its manifest is gone."""
    champion = _read_champions(store)[0].of(role)
    return load_candidate(store, champion.best) if champion is not None else None


def promote(
    store: ObjectStore, candidate: Candidate, role: Role, reason: str, *, is_best: bool = True
) -> ChampionChange | None:
    """Make a candidate's model the champion because the gate let it through.

    ``None``, and nothing is changed, if it is not beyond the furthest champion of its role. ``is_best``:
    whether it was no worse than the best one so far.
    """
    return _change(store, candidate, role, "passed", GATE, reason, is_best=is_best)


def override(
    store: ObjectStore, version: str, roles: Sequence[Role], *, by: str, reason: str
) -> list[ChampionChange]:
    """Make a candidate's models the champions whatever the gate says.

    Raises:
        UserError: There is no such complete candidate, it lacks a model, its models are in use already, or
            ``by`` or ``reason`` is empty.
    """
    return _decide(store, version, roles, "override", by, reason)


def roll_back(
    store: ObjectStore, version: str, roles: Sequence[Role] = ROLES, *, by: str, reason: str
) -> list[ChampionChange]:
    """Take an earlier candidate's models again; those that it has, and that are not in use already.

    Raises:
        UserError: As :func:`override`.
    """
    return _decide(store, version, roles, "rollback", by, reason)


def keep_champions_of_before_the_gate(store: ObjectStore) -> None:
    """Write down what was in use in a store from before the gate, before another candidate is published."""
    try:
        champions, etag = _read_champions(store)
    except DamagedCandidate:  # what was in use is not known, and publishing changes nothing about that
        return
    if etag is None and champions != Champions():
        store.put_if_unchanged(CHAMPION_KEY, champions.model_dump_json(indent=2).encode(), None, JSON_TYPE)


def last_change(store: ObjectStore, role: Role) -> ChampionChange | None:
    """Why the champion of this role is in use; ``None`` before the first, or if that was before the gate."""
    champion = _read_champions(store)[0].of(role)
    if champion is None:
        return None
    made = [one for one in list_champion_changes(store) if one.role == role]
    return made[-1] if made and made[-1].version == champion.version else None


def list_champion_changes(store: ObjectStore) -> list[ChampionChange]:
    """Every change of a champion, oldest first. Raises :class:`UserError` if the list is damaged."""
    return _read_changes(store)[0]


def _decide(
    store: ObjectStore, version: str, roles: Sequence[Role], decision: Decision, by: str, reason: str
) -> list[ChampionChange]:
    candidate = _installable(store, version)
    has = [role for role in roles if MODEL_OF_ROLE[role].file in candidate.files]
    if not has:
        raise UserError(
            f"{store}: candidate {version} has no {' and no '.join(roles)}; "
            f"it has {', '.join(candidate.files)}"
        )
    changes = [_change(store, candidate, role, decision, by, reason) for role in has]
    if not (made := [change for change in changes if change is not None]):
        raise UserError(f"{store}: {' and '.join(has)} of candidate {version} are in use already")
    return made


def _installable(store: ObjectStore, version: str) -> Candidate:
    candidate = load_candidate(store, version)
    if candidate is None:
        known = ", ".join(sorted(one.version for one in list_candidates(store))) or "none"
        raise UserError(f"{store}: there is no candidate {version}; there are: {known}")
    if lost := [name for name in candidate.files if store.stat(candidate_key(version, name)) is None]:
        raise UserError(f"{store}: candidate {version} has lost {', '.join(lost)}; take another one")
    return candidate


def _change(
    store: ObjectStore,
    candidate: Candidate,
    role: Role,
    decision: Decision,
    by: str,
    reason: str,
    *,
    is_best: bool = False,
) -> ChampionChange | None:
    """Record the change, then make it; ``None`` if there is nothing to change."""
    for _ in range(MAX_ATTEMPTS):
        champions, etag = _read_champions(store)
        current = champions.of(role)
        if current is not None and current.version == candidate.version:
            return None
        furthest = load_candidate(store, current.furthest) if current is not None else None
        is_beyond = furthest is None or candidate.order > furthest.order
        if decision == "passed" and not is_beyond:
            return None
        change = _record(store, candidate, role, current.version if current else None, decision, by, reason)
        new = Champion(
            version=candidate.version,
            furthest=candidate.version if is_beyond or current is None else current.furthest,
            best=candidate.version if is_best or current is None else current.best,
        )
        data = champions.model_copy(update={role: new}).model_dump_json(indent=2).encode()
        if store.put_if_unchanged(CHAMPION_KEY, data, etag, JSON_TYPE):
            return change
    raise contended(store, CHAMPION_KEY)


def _record(
    store: ObjectStore,
    candidate: Candidate,
    role: Role,
    previous: str | None,
    decision: Decision,
    by: str,
    reason: str,
) -> ChampionChange:
    """Append to the list of changes; one that was recorded and then died is not recorded twice."""
    try:
        change = ChampionChange(
            role=role,
            version=candidate.version,
            previous=previous,
            decision=decision,
            by=by,
            reason=reason,
            at=datetime.now(UTC),
        )
    except ValidationError:
        raise UserError(f"a {decision} says who wanted it and why: give a reason") from None
    for _ in range(MAX_ATTEMPTS):
        changes, etag = _read_changes(store)
        last = next((one for one in reversed(changes) if one.role == role), None)
        same = last is not None and last.model_copy(update={"at": change.at}) == change
        if last is not None and same:
            return last
        data = CHANGES.dump_json([*changes, change], indent=2)
        if store.put_if_unchanged(CHANGES_KEY, data, etag, JSON_TYPE):
            return change
    raise contended(store, CHANGES_KEY)


def _read_champions(store: ObjectStore) -> tuple[Champions, str | None]:
    """The pointer and its ETag. In a store from before the gate the newest candidate was in use."""
    try:
        data, etag = store.get_with_etag(CHAMPION_KEY, MAX_POINTER_BYTES)
    except NoSuchObject:
        return _champions_before_the_gate(store), None
    try:
        return Champions.model_validate_json(data), etag
    except ValidationError:
        raise DamagedCandidate(
            f"{store}: {CHAMPION_KEY} is damaged; restore it, or remove it and name the models to use by "
            "`trashnet rollback VERSION`"
        ) from None


def _champions_before_the_gate(store: ObjectStore) -> Champions:
    newest, _ = read_newest(store)
    used = None if newest is None else newest.used_before_the_gate
    candidate = load_candidate(store, used) if used else None
    if newest is None or candidate is None:
        return Champions()
    champion = Champion(version=candidate.version, furthest=newest.newest, best=candidate.version)
    has = {role: champion for role in ROLES if MODEL_OF_ROLE[role].file in candidate.files}
    return Champions(teacher=has.get("teacher"), student=has.get("student"))


def _read_changes(store: ObjectStore) -> tuple[list[ChampionChange], str | None]:
    try:
        data, etag = store.get_with_etag(CHANGES_KEY, MAX_POINTER_BYTES)
    except NoSuchObject:
        return [], None
    try:
        return CHANGES.validate_json(data), etag
    except ValidationError as error:
        raise UserError(f"{store}: {CHANGES_KEY} is damaged ({error}); restore or remove it") from None
