"""Look at one upload and write its objects where they will stay.

Nothing is entered in the ledger or removed from the inbox here.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from ingest.decoders import Decoders
from ingest.object_keys import JPEG, JSON, frame_key, quarantine_key, refusal_id
from ingest.params import IngestParams
from ingest.sidecar import (
    RELEASE,
    BadSidecar,
    Place,
    Sidecar,
    capture_time,
    cut,
    parse_sidecar,
    place_of,
    usable_boxes,
)
from trashnet.images import UnfitImage, check_size, clean_jpeg
from trashnet.ledger import FrameRow
from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge
from trashnet.taxonomy import Taxonomy

Refusal = Literal["bad-key", "bad-sidecar", "too-many-bytes", "wrong-checksum"]


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was looked at: the row it asks for, the objects written for it, and the inbox keys to
    remove, in order.
    """

    row: FrameRow
    written: tuple[str, ...]
    inbox: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Orphan:
    """A sidecar without its picture: it comes later, or was dealt with in a run that died and the ledger has
    one of ``known_as``.
    """

    inbox: tuple[str, ...]
    known_as: frozenset[str]


class Examiner:
    """Looks at uploads; used by many threads at once."""

    def __init__(
        self, store: ObjectStore, taxonomy: Taxonomy, params: IngestParams, decoders: Decoders
    ) -> None:
        self._store, self._params, self._decoders = store, params, decoders
        self._labels = frozenset(taxonomy.names)
        self._published = cache(self._is_published)

    def examine(self, key: str) -> Upload | Orphan | None:
        """Look at the upload with this sidecar; ``None`` if it is gone: another run has dealt with it."""
        try:
            raw = self._store.get(key, limit=self._params.max_sidecar_bytes)
        except NoSuchObject:
            return None
        except ObjectTooLarge:
            return self._refused(
                key, None, "bad-sidecar", f"more than {self._params.max_sidecar_bytes:,} bytes"
            )
        place = place_of(key)
        if place is None:
            return self._refused(key, raw, "bad-key", "not named inbox/<bin>/<date>/<sha256>.json")
        try:
            sidecar = parse_sidecar(raw, place)
        except BadSidecar as bad:
            return self._refused(key, raw, "bad-sidecar", str(bad))
        try:
            data = self._store.get(place.frame, limit=self._params.max_bytes)
        except NoSuchObject:
            return Orphan((key,), frozenset({place.sha256, refusal_id(key, raw)}))
        except ObjectTooLarge:
            return self._refused(key, raw, "too-many-bytes", f"more than {self._params.max_bytes:,} bytes")
        if (uploaded := hashlib.sha256(data).hexdigest()) != place.sha256:
            return self._refused(
                key, raw, "wrong-checksum", f"named {place.sha256}, but its bytes have SHA-256 {uploaded}"
            )
        return self._judged(place, sidecar, raw, data)

    def _judged(self, place: Place, sidecar: Sidecar, raw: bytes, data: bytes) -> Upload:
        """A whole upload: its picture is what its name says, and now decides."""
        row = self._told(place, sidecar)
        inbox = (place.frame, place.sidecar)
        try:
            clean = clean_jpeg(data)
            check_size(
                clean.width, clean.height, min_side=self._params.min_side, max_pixels=self._params.max_pixels
            )
            seen = self._decoders.decode(clean.data)
        except UnfitImage as unfit:
            picture, beside = (quarantine_key(unfit.fault, place.sha256, kind) for kind in ("jpg", "json"))
            self._store.put(picture, data, JPEG)
            self._store.put(beside, raw, JSON)
            what = cut(f"{unfit.what}; {row.note}" if row.note else unfit.what)
            row = replace(row, state="quarantined", key=picture, quarantine_reason=unfit.fault, note=what)
            return Upload(row, (picture, beside), inbox)
        boxes, notes = usable_boxes(sidecar.detections, seen.width, seen.height, self._labels)
        sha256 = hashlib.sha256(clean.data).hexdigest()
        key = frame_key(sha256)
        self._store.put(key, clean.data, JPEG)
        row = replace(
            row,
            sha256=sha256,
            key=key,
            detections=boxes,
            width=seen.width,
            height=seen.height,
            phash=seen.phash,
            descriptor=seen.descriptor,
            note=cut("; ".join([row.note, *notes] if row.note else notes)) or None,
        )
        return Upload(row, (key,), inbox)

    def _told(self, place: Place, sidecar: Sidecar) -> FrameRow:
        """The row of an upload as far as its sidecar tells it."""
        time, about_time = capture_time(sidecar.captured_at, datetime.now(UTC), self._params)
        if time is None:
            arrived = self._store.stat(place.sidecar)
            time = arrived.modified if arrived else datetime.now(UTC)
        notes = [about_time] if about_time else []
        if sidecar.release is not None and not self._published(sidecar.release):
            notes.append(f"release {sidecar.release!r} was never published")
        if sidecar.model_extra:
            notes.append(f"unknown fields: {', '.join(sorted(map(repr, sidecar.model_extra)))}")
        return FrameRow(
            sha256=place.sha256,
            uploaded_sha256=place.sha256,
            state="received",
            inbox_key=place.sidecar,
            bin_id=place.bin_id,
            burst=sidecar.burst,
            captured_at=time,
            release=sidecar.release,
            reason=sidecar.reason,
            note=cut("; ".join(notes)) or None,
        )

    def _is_published(self, release: str) -> bool:
        return (
            bool(RELEASE.fullmatch(release))
            and next(self._store.list(f"models/{release}/"), None) is not None
        )

    def _refused(self, key: str, raw: bytes | None, reason: Refusal, what: str) -> Upload | Orphan:
        """Copy an upload to quarantine whose picture is not what counts against it."""
        sha256 = refusal_id(key, raw or b"")
        frame = f"{key.removesuffix('.json')}.jpg"
        picture, beside = (quarantine_key(reason, sha256, kind) for kind in ("jpg", "json"))
        place = place_of(key)
        written = [beside]
        try:
            self._store.copy(frame, picture)
            written.insert(0, picture)
        except NoSuchObject:
            if place is not None:
                return Orphan((key,), frozenset({place.sha256, sha256}))
        try:
            self._store.copy(key, beside)
        except NoSuchObject:
            return Orphan((key,), frozenset())  # another run has dealt with it meanwhile
        bin_id = place.bin_id if place else None
        row = FrameRow(
            sha256=sha256, uploaded_sha256=sha256, state="quarantined", inbox_key=key, key=written[0],
            bin_id=bin_id,
            quarantine_reason=reason, note=cut(what),
        )  # fmt: skip
        return Upload(row, tuple(written), (frame, key))
