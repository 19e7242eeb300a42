"""Which candidate is the newest: the furthest that was ever published. Nobody uses it for that alone.

``models/newest.json`` holds its version, and only moves forward: to a candidate of a later dataset
(:attr:`export.Candidate.order`), or of the same dataset and published later. So a training that is published
late, or again, changes nothing. Which candidate's models are in use is said by :mod:`export.champions`.

The object is written with the ETag that was read (``If-Match``). A server that does not know that header
ignores it, as the embedded stack's does: there the one slot of the queue ``training`` guards the pointer,
since retraining and publishing run one at a time.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from export.candidates import PREFIX, Candidate, DamagedCandidate, Version, list_candidates, load_candidate
from export.pointers import JSON_TYPE, MAX_ATTEMPTS, MAX_POINTER_BYTES, contended
from trashnet.store import NoSuchObject, ObjectStore

NEWEST_KEY = f"{PREFIX}/newest.json"


class Newest(BaseModel):
    """``newest.json``: the version of the furthest candidate.

    Without ``format`` it was written before there was a gate: ``version`` is what bins got, and ``furthest``
    the furthest one where that was another.
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    version: Version
    furthest: Version | None = None
    format: Literal[2] | None = None

    @property
    def newest(self) -> str:
        """The furthest candidate's version."""
        return self.furthest or self.version

    @property
    def used_before_the_gate(self) -> str | None:
        """The version whose models all were in use, ``None`` if the gate decides that."""
        return self.version if self.format is None else None


def load_newest_candidate(store: ObjectStore) -> Candidate | None:
    """The furthest candidate that was published, ``None`` before the first.

    Raises :class:`UserError` if its manifest is missing or damaged.
    """
    newest, _ = read_newest(store)
    if newest is None:
        return None
    candidate = load_candidate(store, newest.newest)
    if candidate is None:
        raise DamagedCandidate(
            f"{store}: {NEWEST_KEY} names {newest.newest}, which has no manifest; "
            "publishing a candidate writes it anew"
        )
    return candidate


def advance_newest(store: ObjectStore, candidate: Candidate) -> bool:
    """Make a published candidate the newest if it is beyond all that were; whether it was.

    A pointer that is missing or damaged is written anew from the manifests in the store.
    """
    for _ in range(MAX_ATTEMPTS):
        furthest, etag = _find_furthest(store)
        if furthest is not None and candidate.order <= furthest.order:
            return False
        if _write(store, candidate, etag):
            return True
    raise contended(store, NEWEST_KEY)


def read_newest(store: ObjectStore) -> tuple[Newest | None, str | None]:
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


def _find_furthest(store: ObjectStore) -> tuple[Candidate | None, str | None]:
    """The furthest candidate, and the pointer's ETag."""
    try:
        newest, etag = read_newest(store)
        furthest = load_candidate(store, newest.newest) if newest else None
        if newest is None or furthest is not None:
            return furthest, etag
    except DamagedCandidate:  # or the pointer is
        _, etag = store.get_with_etag(NEWEST_KEY, MAX_POINTER_BYTES)
    furthest = max(list_candidates(store), key=lambda one: one.order, default=None)
    if furthest is not None:
        _write(store, furthest, etag)
        _, etag = store.get_with_etag(NEWEST_KEY, MAX_POINTER_BYTES)
    return furthest, etag


def _write(store: ObjectStore, candidate: Candidate, etag: str | None) -> bool:
    newest = Newest(version=candidate.version, format=2)
    return store.put_if_unchanged(NEWEST_KEY, newest.model_dump_json().encode(), etag, JSON_TYPE)
