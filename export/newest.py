"""Which candidate bins get: the newest one, or the one that an operator went back to.

``models/newest.json`` holds the version that bins get and the furthest version there was. Publishing moves
both forward, and only forward: to a candidate of a later dataset (:attr:`export.Candidate.order`), or of the
same dataset and published later. So a training that is published late, or again, changes nothing.

A rollback is an operator's own verb. It changes the version and leaves the furthest one, so that publishing
the same training again does not undo it; a candidate beyond the furthest one does. ``models/rollbacks.json``
lists who went back, when and why.

Both objects are written with the ETag that was read (``If-Match``). A server that does not know that header
ignores it, as the embedded stack's does: there the one slot of the queue ``training`` guards the pointer,
since retraining and publishing run one at a time.
"""

import json
from datetime import UTC, datetime
from typing import Annotated

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
from trashnet.errors import UserError
from trashnet.store import NoSuchObject, ObjectStore

NEWEST_KEY = f"{PREFIX}/newest.json"
ROLLBACKS_KEY = f"{PREFIX}/rollbacks.json"
MAX_POINTER_BYTES = 1 << 20
MAX_ATTEMPTS = 10  # to write an object that others write at the same time
JSON_TYPE = "application/json"


class Newest(BaseModel):
    """``newest.json``: the version that bins get, and the furthest there was; they differ after a rollback.

    Before version 0.3 the file held the version alone.
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    version: Version
    furthest: Version | None = None


class Rollback(BaseModel):
    """An operator went back from one candidate to another: who, when and why."""

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    version: Version
    previous: Version
    at: datetime
    by: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


ROLLBACKS = TypeAdapter(list[Rollback])


def load_newest_candidate(store: ObjectStore) -> Candidate | None:
    """The candidate that bins get, ``None`` before the first.

    Raises :class:`UserError` if its manifest is missing or damaged.
    """
    newest, _ = _read_newest(store)
    if newest is None:
        return None
    candidate = load_candidate(store, newest.version)
    if candidate is None:
        raise DamagedCandidate(
            f"{store}: {NEWEST_KEY} names {newest.version}, which has no manifest; "
            "publishing a candidate writes it anew"
        )
    return candidate


def advance_newest(store: ObjectStore, candidate: Candidate) -> bool:
    """Make a published candidate the newest if it is beyond the furthest one; whether it was.

    A pointer that is missing or damaged is written anew from the manifests in the store.
    """
    for _ in range(MAX_ATTEMPTS):
        furthest, etag = _find_furthest(store)
        if furthest is not None and candidate.order <= furthest.order:
            return False
        newest = Newest(version=candidate.version, furthest=candidate.version)
        if _write_newest(store, newest, etag):
            return True
    raise _contended(store, NEWEST_KEY)


def roll_back(store: ObjectStore, version: str, *, by: str, reason: str) -> Rollback:
    """Make bins get an earlier candidate again, and record who wanted that and why; the record.

    The record is written first. If the process dies before the pointer is, calling this again finishes it.

    Raises:
        UserError: There is no such complete candidate, bins get it already, or ``by`` or ``reason`` is empty.
    """
    candidate = load_candidate(store, version)
    if candidate is None:
        known = ", ".join(sorted(one.version for one in list_candidates(store))) or "none"
        raise UserError(f"{store}: no candidate {version} to go back to; there are: {known}")
    if lost := [name for name in candidate.files if store.stat(candidate_key(version, name)) is None]:
        raise UserError(f"{store}: candidate {version} has lost {', '.join(lost)}; go back to another one")
    for _ in range(MAX_ATTEMPTS):
        newest, etag = _read_newest(store)
        if newest is None:
            raise UserError(f"{store}: no candidate is the newest yet, so there is nothing to go back from")
        if newest.version == version:
            raise UserError(f"{store}: bins get candidate {version} already")
        record = _record_rollback(store, version, newest.version, by, reason)
        pointer = Newest(version=version, furthest=newest.furthest or newest.version)
        if _write_newest(store, pointer, etag):
            return record
    raise _contended(store, NEWEST_KEY)


def current_rollback(store: ObjectStore) -> Rollback | None:
    """The rollback that is in force: why bins do not get the furthest candidate; ``None`` if they do."""
    newest, _ = _read_newest(store)
    if newest is None or newest.furthest in (None, newest.version):
        return None
    records = [record for record in _read_rollbacks(store)[0] if record.version == newest.version]
    return records[-1] if records else None


def _find_furthest(store: ObjectStore) -> tuple[Candidate | None, str | None]:
    """The furthest candidate that was ever the newest, and the pointer's ETag."""
    try:
        newest, etag = _read_newest(store)
        furthest = load_candidate(store, newest.furthest or newest.version) if newest else None
        if newest is None or furthest is not None:
            return furthest, etag
    except DamagedCandidate:  # or the pointer is
        _, etag = store.get_with_etag(NEWEST_KEY, MAX_POINTER_BYTES)
    furthest = max(list_candidates(store), key=lambda one: one.order, default=None)
    if furthest is not None:
        _write_newest(store, Newest(version=furthest.version, furthest=furthest.version), etag)
        _, etag = store.get_with_etag(NEWEST_KEY, MAX_POINTER_BYTES)
    return furthest, etag


def _read_newest(store: ObjectStore) -> tuple[Newest | None, str | None]:
    """The pointer and its ETag. Raises :class:`DamagedCandidate` if it is damaged."""
    try:
        data, etag = store.get_with_etag(NEWEST_KEY, MAX_POINTER_BYTES)
    except NoSuchObject:
        return None, None
    try:
        return Newest.model_validate_json(data), etag
    except ValidationError:
        raise DamagedCandidate(
            f"{store}: {NEWEST_KEY} is damaged; publishing a candidate writes it anew"
        ) from None


def _write_newest(store: ObjectStore, newest: Newest, etag: str | None) -> bool:
    return store.put_if_unchanged(NEWEST_KEY, newest.model_dump_json().encode(), etag, JSON_TYPE)


def _record_rollback(store: ObjectStore, version: str, previous: str, by: str, reason: str) -> Rollback:
    """Append to the list of rollbacks; one that was recorded and then died is not recorded twice."""
    try:
        record = Rollback(version=version, previous=previous, at=datetime.now(UTC), by=by, reason=reason)
    except ValidationError:
        raise UserError("a rollback says who wanted it and why: give a reason") from None
    for _ in range(MAX_ATTEMPTS):
        records, etag = _read_rollbacks(store)
        if records and (records[-1].version, records[-1].previous) == (version, previous):
            return records[-1]
        data = json.dumps([one.model_dump(mode="json") for one in [*records, record]], indent=2).encode()
        if store.put_if_unchanged(ROLLBACKS_KEY, data, etag, JSON_TYPE):
            return record
    raise _contended(store, ROLLBACKS_KEY)


def _read_rollbacks(store: ObjectStore) -> tuple[list[Rollback], str | None]:
    try:
        data, etag = store.get_with_etag(ROLLBACKS_KEY, MAX_POINTER_BYTES)
    except NoSuchObject:
        return [], None
    try:
        return ROLLBACKS.validate_json(data), etag
    except ValidationError as error:
        raise UserError(f"{store}: {ROLLBACKS_KEY} is damaged ({error}); restore or remove it") from None


def _contended(store: ObjectStore, key: str) -> UserError:
    return UserError(f"{store}: {key} was changed {MAX_ATTEMPTS} times meanwhile; run this again")
