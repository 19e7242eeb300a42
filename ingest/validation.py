"""Validate one upload and write its objects to their final keys.

Nothing is entered in the ledger or removed from the inbox here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

from ingest.decoders import DecoderPool
from ingest.object_keys import (
    JPEG,
    JSON,
    RELEASE,
    InboxKey,
    frame_key,
    parse_inbox_key,
    quarantine_key,
    refusal_digest,
)
from ingest.params import IngestParams
from ingest.sidecar import BadSidecar, Sidecar, capture_time, parse_sidecar, shorten, usable_boxes
from trashnet.choice import upload_reason
from trashnet.images import UnfitImage, check_size, clean_jpeg
from trashnet.ledger import FrameRow
from trashnet.quarantine import QuarantineReason
from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge, UnusableKey
from trashnet.taxonomy import Taxonomy

ABSENT = ""  # in place of the ETag of an object that was not there


@dataclass(frozen=True, slots=True)
class ValidatedUpload:
    """An upload with its row for the ledger, accepted or refused.

    ``written_keys`` are those of the objects written for it, ``inbox_keys`` those to remove, in this order.
    ``size``: the bytes that were read of it. ``etags``: of a refused upload's objects in the inbox, as they
    were examined; an object that has another one now was uploaded again, corrected perhaps, and must stay.
    """

    row: FrameRow
    written_keys: tuple[str, ...]
    inbox_keys: tuple[str, ...]
    size: int
    etags: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrphanSidecar:
    """A sidecar without its picture.

    The picture is still to come, or a run that died has removed it: then the ledger has an upload with one of
    the ``known_sha256s``.
    """

    inbox_keys: tuple[str, ...]
    known_sha256s: frozenset[str]


class UploadValidator:
    """Validates uploads; used by many threads at once."""

    def __init__(
        self, store: ObjectStore, taxonomy: Taxonomy, params: IngestParams, decoders: DecoderPool
    ) -> None:
        self._store, self._params, self._decoders = store, params, decoders
        self._labels = frozenset(taxonomy.names)
        self._published = cache(self._is_published)

    def validate(self, key: str) -> ValidatedUpload | OrphanSidecar | None:
        """Validate the upload with this sidecar; ``None`` if another run has removed it meanwhile.

        ``None`` as well for a key that the store lists and cannot read.
        """
        try:
            raw, etag = self._store.get_with_etag(key, limit=self._params.max_sidecar_bytes)
        except (NoSuchObject, UnusableKey):
            return None
        except ObjectTooLarge as large:
            limit = self._params.max_sidecar_bytes
            refusal = _Refusal(QuarantineReason.BAD_SIDECAR, f"more than {limit:,} bytes", limit)
            return self._quarantine(key, None, refusal, {key: large.etag})
        etags = {key: etag}
        inbox_key = parse_inbox_key(key)
        if inbox_key is None:
            what = "not named inbox/<bin>/<date>/<sha256>.json"
            return self._quarantine(key, raw, _Refusal(QuarantineReason.BAD_KEY, what, len(raw)), etags)
        try:
            sidecar = parse_sidecar(raw, inbox_key)
        except BadSidecar as bad:
            refusal = _Refusal(QuarantineReason.BAD_SIDECAR, str(bad), len(raw))
            return self._quarantine(key, raw, refusal, etags)
        try:
            data, etags[inbox_key.frame] = self._store.get_with_etag(
                inbox_key.frame, limit=self._params.max_bytes
            )
        except NoSuchObject:
            return OrphanSidecar((key,), frozenset({inbox_key.sha256, refusal_digest(key, raw)}))
        except ObjectTooLarge as large:
            limit = self._params.max_bytes
            refusal = _Refusal(
                QuarantineReason.TOO_MANY_BYTES, f"more than {limit:,} bytes", limit + len(raw)
            )
            return self._quarantine(key, raw, refusal, etags | {inbox_key.frame: large.etag})
        if (uploaded := hashlib.sha256(data).hexdigest()) != inbox_key.sha256:
            what = f"named {inbox_key.sha256}, but its bytes have SHA-256 {uploaded}"
            refusal = _Refusal(QuarantineReason.WRONG_CHECKSUM, what, len(data) + len(raw))
            return self._quarantine(key, raw, refusal, etags, data)
        return self._validate_picture(inbox_key, sidecar, raw, data, etags)

    def _validate_picture(
        self, inbox_key: InboxKey, sidecar: Sidecar, raw: bytes, data: bytes, etags: Mapping[str, str | None]
    ) -> ValidatedUpload:
        """The upload's key, sidecar and checksum are right: the picture decides."""
        row = self._row_from_sidecar(inbox_key, sidecar)
        inbox = (inbox_key.frame, inbox_key.sidecar)
        try:
            clean = clean_jpeg(data)
            check_size(
                clean.width, clean.height, min_side=self._params.min_side, max_pixels=self._params.max_pixels
            )
            seen = self._decoders.decode(clean.data)
        except UnfitImage as unfit:
            picture = quarantine_key(unfit.fault, inbox_key.sha256, "jpg")
            sidecar_copy = quarantine_key(unfit.fault, inbox_key.sha256, "json")
            self._store.put(picture, data, JPEG)
            self._store.put(sidecar_copy, raw, JSON)
            note = shorten(f"{unfit.what}; {row.note}" if row.note else unfit.what)
            row = replace(row, state="quarantined", key=picture, quarantine_reason=unfit.fault, note=note)
            return ValidatedUpload(row, (picture, sidecar_copy), inbox, len(data) + len(raw), etags)
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
            note=shorten("; ".join([row.note, *notes] if row.note else notes)) or None,
        )
        return ValidatedUpload(row, (key,), inbox, len(data) + len(raw))

    def _row_from_sidecar(self, inbox_key: InboxKey, sidecar: Sidecar) -> FrameRow:
        """The row of an upload as far as its sidecar decides it."""
        time, about_time = capture_time(sidecar.captured_at, datetime.now(UTC), self._params)
        if time is None:
            arrived = self._store.stat(inbox_key.sidecar)
            time = arrived.modified if arrived else datetime.now(UTC)
        notes = [about_time] if about_time else []
        if sidecar.release is not None and not self._published(sidecar.release):
            notes.append(f"release {sidecar.release!r} was never published")
        if sidecar.model_extra:
            notes.append(f"unknown fields: {', '.join(sorted(map(repr, sidecar.model_extra)))}")
        return FrameRow(
            sha256=inbox_key.sha256,
            uploaded_sha256=inbox_key.sha256,
            state="received",
            inbox_key=inbox_key.sidecar,
            bin_id=inbox_key.bin_id,
            burst=sidecar.burst,
            captured_at=time,
            release=sidecar.release,
            reason=sidecar.reason,
            upload_reason=upload_reason(sidecar.reason),
            note=shorten("; ".join(notes)) or None,
        )

    def _is_published(self, release: str) -> bool:
        return (
            bool(RELEASE.fullmatch(release))
            and next(self._store.list(f"models/{release}/"), None) is not None
        )

    def _quarantine(
        self,
        key: str,
        raw: bytes | None,
        refusal: "_Refusal",
        etags: Mapping[str, str | None],
        data: bytes | None = None,
    ) -> ValidatedUpload | OrphanSidecar:
        """Copy an upload to quarantine that is refused for another reason than its picture.

        What was read, ``raw`` of the sidecar and ``data`` of the picture, is written as it was examined.
        """
        reason = refusal.reason
        sha256 = refusal_digest(key, raw or b"")
        frame = f"{key.removesuffix('.json')}.jpg"
        picture, sidecar_copy = (quarantine_key(reason, sha256, kind) for kind in ("jpg", "json"))
        inbox_key = parse_inbox_key(key)
        written = [sidecar_copy]
        if frame not in etags:
            found = self._store.stat(frame)
            etags = {**etags, frame: found.etag if found else ABSENT}
        try:
            if data is None:
                self._store.copy(frame, picture)
            else:
                self._store.put(picture, data, JPEG)
            written.insert(0, picture)
        except NoSuchObject:
            if inbox_key is not None:
                return OrphanSidecar((key,), frozenset({inbox_key.sha256, sha256}))
        if raw is None:
            try:
                self._store.copy(key, sidecar_copy)
            except NoSuchObject:
                return OrphanSidecar((key,), frozenset())  # another run removed it meanwhile
        else:
            self._store.put(sidecar_copy, raw, JSON)
        row = FrameRow(
            sha256=sha256,
            uploaded_sha256=sha256,
            state="quarantined",
            inbox_key=key,
            key=written[0],
            bin_id=inbox_key.bin_id if inbox_key else None,
            quarantine_reason=reason,
            note=shorten(refusal.what),
        )
        return ValidatedUpload(row, tuple(written), (frame, key), refusal.size, etags)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why an upload is refused, in a word and in a sentence, and how many bytes of it were read."""

    reason: QuarantineReason
    what: str
    size: int
