"""Validate one upload and write its objects to their final keys.

Nothing is entered in the ledger or removed from the inbox here.
"""

import hashlib
from dataclasses import dataclass, replace
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
from trashnet.images import UnfitImage, check_size, clean_jpeg
from trashnet.ledger import FrameRow
from trashnet.quarantine import QuarantineReason
from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ValidatedUpload:
    """An upload with its row for the ledger, accepted or refused.

    ``written_keys`` are those of the objects written for it, ``inbox_keys`` those to remove, in this order.
    ``size``: the bytes that were read of it.
    """

    row: FrameRow
    written_keys: tuple[str, ...]
    inbox_keys: tuple[str, ...]
    size: int


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
        """Validate the upload with this sidecar; ``None`` if another run has removed it meanwhile."""
        try:
            raw = self._store.get(key, limit=self._params.max_sidecar_bytes)
        except NoSuchObject:
            return None
        except ObjectTooLarge:
            return self._quarantine(
                key,
                None,
                QuarantineReason.BAD_SIDECAR,
                f"more than {self._params.max_sidecar_bytes:,} bytes",
                self._params.max_sidecar_bytes,
            )
        inbox_key = parse_inbox_key(key)
        if inbox_key is None:
            return self._quarantine(
                key, raw, QuarantineReason.BAD_KEY, "not named inbox/<bin>/<date>/<sha256>.json", len(raw)
            )
        try:
            sidecar = parse_sidecar(raw, inbox_key)
        except BadSidecar as bad:
            return self._quarantine(key, raw, QuarantineReason.BAD_SIDECAR, str(bad), len(raw))
        try:
            data = self._store.get(inbox_key.frame, limit=self._params.max_bytes)
        except NoSuchObject:
            return OrphanSidecar((key,), frozenset({inbox_key.sha256, refusal_digest(key, raw)}))
        except ObjectTooLarge:
            return self._quarantine(
                key,
                raw,
                QuarantineReason.TOO_MANY_BYTES,
                f"more than {self._params.max_bytes:,} bytes",
                self._params.max_bytes + len(raw),
            )
        if (uploaded := hashlib.sha256(data).hexdigest()) != inbox_key.sha256:
            return self._quarantine(
                key,
                raw,
                QuarantineReason.WRONG_CHECKSUM,
                f"named {inbox_key.sha256}, but its bytes have SHA-256 {uploaded}",
                len(data) + len(raw),
            )
        return self._validate_picture(inbox_key, sidecar, raw, data)

    def _validate_picture(
        self, inbox_key: InboxKey, sidecar: Sidecar, raw: bytes, data: bytes
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
            return ValidatedUpload(row, (picture, sidecar_copy), inbox, len(data) + len(raw))
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
            note=shorten("; ".join(notes)) or None,
        )

    def _is_published(self, release: str) -> bool:
        return (
            bool(RELEASE.fullmatch(release))
            and next(self._store.list(f"models/{release}/"), None) is not None
        )

    def _quarantine(
        self, key: str, raw: bytes | None, reason: QuarantineReason, what: str, size: int
    ) -> ValidatedUpload | OrphanSidecar:
        """Copy an upload to quarantine that is refused for another reason than its picture."""
        sha256 = refusal_digest(key, raw or b"")
        frame = f"{key.removesuffix('.json')}.jpg"
        picture, sidecar_copy = (quarantine_key(reason, sha256, kind) for kind in ("jpg", "json"))
        inbox_key = parse_inbox_key(key)
        written = [sidecar_copy]
        try:
            self._store.copy(frame, picture)
            written.insert(0, picture)
        except NoSuchObject:
            if inbox_key is not None:
                return OrphanSidecar((key,), frozenset({inbox_key.sha256, sha256}))
        try:
            self._store.copy(key, sidecar_copy)
        except NoSuchObject:
            return OrphanSidecar((key,), frozenset())  # another run removed it meanwhile
        bin_id = inbox_key.bin_id if inbox_key else None
        row = FrameRow(
            sha256=sha256,
            uploaded_sha256=sha256,
            state="quarantined",
            inbox_key=key,
            key=written[0],
            bin_id=bin_id,
            quarantine_reason=reason,
            note=shorten(what),
        )
        return ValidatedUpload(row, tuple(written), (frame, key), size)
