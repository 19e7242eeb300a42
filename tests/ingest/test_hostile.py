"""Invalid and hostile uploads go to quarantine with a reason; a frame with a questionable sidecar is kept."""

import io
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.support.inbox import pending_uploads
from ingest import (
    DecoderPool,
    IngestParams,
    ReceptionCounts,
    deduplicate,
    receive,
    sweep_inbox,
)
from ingest.object_keys import InboxKey, parse_inbox_key
from ingest.params import IngestParams as Params
from ingest.sidecar import BadSidecar, parse_sidecar, usable_boxes
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.images import UnfitImage, clean_jpeg
from trashnet.ledger import Ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

WHOLE = jpeg(scene(1))


def jpeg_with_header_size(width: int, height: int) -> bytes:
    """A JPEG whose header gives another size than its pixels have."""
    at = WHOLE.index(b"\xff\xc0") + 5
    return WHOLE[:at] + struct.pack(">HH", height, width) + WHOLE[at + 4 :]


PICTURES = [
    ("a bomb's header", jpeg_with_header_size(60_000, 60_000), "too-many-pixels", "60000 x 60000"),
    ("no size", jpeg_with_header_size(0, 100), "broken-image", "no size"),
    ("truncated", WHOLE[: len(WHOLE) // 2], "broken-image", "truncated"),
    ("cut in its header", WHOLE[:100], "broken-image", "truncated"),
    ("a page", b"<html><body>404</body></html>", "not-an-image", "<html>"),
    ("nothing", b"", "not-an-image", "empty"),
    ("a PNG", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not-an-image", "PNG"),
    ("one pixel", jpeg(scene(1, 1, 1)), "too-small", "1 x 1"),
    ("print colours", jpeg(scene(1).convert("CMYK")), "wrong-format", "4 colour components"),
]


@pytest.mark.parametrize(
    ("data", "reason", "what"), [case[1:] for case in PICTURES], ids=[case[0] for case in PICTURES]
)
def test_a_bad_picture_goes_to_quarantine(
    data: bytes,
    reason: str,
    what: str,
    store: ObjectStore,
    ledger: Ledger,
    taxonomy: Taxonomy,
    params: IngestParams,
) -> None:
    """Its bytes and sidecar are kept, the ledger records the reason, and the next frame is received."""
    upload(store, data)
    upload(store, jpeg(scene(2)))
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(
        received=1, quarantined=1
    )
    (row,) = frames_in_state(ledger, "quarantined")
    assert (row.quarantine_reason, row.key) == (reason, f"quarantine/{reason}/{row.sha256}.jpg")
    assert what in str(row.note)
    assert store.get(str(row.key)) == data
    assert json.loads(store.get(str(row.key).replace(".jpg", ".json"))) == sidecar()
    assert pending_uploads(store) == []


DEEP = b'{"detections":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
SIDECARS = [
    ("no JSON", b"{", "JSON"),
    ("no object", b"[]", "object"),
    ("not UTF-8", b'{"bin_id": "\xff"}', "unicode"),
    ("very deep", DEEP, "recursion"),
    ("huge", b'{"reason": "' + b"x" * 70_000 + b'"}', "65,536 bytes"),
    ("path in its bin", json.dumps(sidecar(bin_id="../bin01")).encode(), "bin_id"),
    ("another bin", json.dumps(sidecar(bin_id="bin02")).encode(), "inbox of 'bin01'"),
    (
        "score NaN",
        json.dumps(
            sidecar(detections=[{"label": "Shoe", "score": float("nan"), "box": [1, 2, 3, 4]}])
        ).encode(),
        "finite",
    ),
    (
        "box infinite",
        b'{"bin_id":"bin01","captured_at":"","detections":[{"label":"Shoe","score":0.5,"box":[1,2,1e999,4]}]}',
        "box.2",
    ),
    (
        "box of three",
        json.dumps(sidecar(detections=[{"label": "Shoe", "score": 0.5, "box": [1, 2, 3]}])).encode(),
        "box",
    ),
    (
        "text for a number",
        json.dumps(sidecar(detections=[{"label": "Shoe", "score": "0.5", "box": [1, 2, 3, 4]}])).encode(),
        "score",
    ),
    ("a zero byte", json.dumps(sidecar(reason="a\0b")).encode(), "reason"),
    ("half a character", json.dumps(sidecar(burst="\ud800")).encode(), "JSON"),
    ("a burst like a book", json.dumps(sidecar(burst="b" * 129)).encode(), "128"),
]


@pytest.mark.parametrize(
    ("content", "what"), [case[1:] for case in SIDECARS], ids=[case[0] for case in SIDECARS]
)
def test_an_invalid_sidecar_sends_its_frame_to_quarantine(
    content: bytes, what: str, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """Both go to quarantine, and the note says what is wrong.

    If the same frame is uploaded again with a valid sidecar, it is received.
    """
    upload(store, WHOLE, content)
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(quarantined=1)
    (row,) = frames_in_state(ledger, "quarantined")
    assert row.quarantine_reason == "bad-sidecar"
    assert what in str(row.note)
    assert store.get(str(row.key)) == WHOLE
    upload(store, WHOLE)
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(received=1)


def test_a_frame_with_a_questionable_sidecar_is_received(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """The note lists a time in 1970, an unknown release, an unknown label and boxes outside the image.

    The time of arrival replaces the time of capture.
    """
    boxes = [[-5, -5, 20, 20], [90, 60, 500, 500], [200, 200, 5, 5]]
    found = [{"label": "Shoe", "score": 0.5, "box": box} for box in boxes] + [
        {"label": "Dragon", "score": 0.9, "box": [1, 2, 3, 4]}
    ]
    content = sidecar(captured_at="1970-01-01T00:00:12Z", release="../../r99", detections=found, mood="fine")
    upload(store, WHOLE, content)
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(received=1)
    (row,) = frames_in_state(ledger, "received")
    assert row.captured_at is not None
    assert before < row.captured_at < datetime.now(UTC) + timedelta(minutes=1)
    assert [box.xywh for box in row.detections] == [(0, 0, 15, 15), (90, 60, 6, 12)]
    for part in (
        "1970",
        "'../../r99' was never published",
        "'Dragon'",
        "1 boxes without area",
        "unknown fields: 'mood'",
    ):
        assert part in str(row.note)


@pytest.mark.parametrize(
    "content",
    [
        "yesterday",
        "",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+14:00",
        "2019-12-31T00:00:00Z",
        "1e9",
    ],
)
def test_a_frame_with_an_invalid_time_is_received(
    content: str, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """The time of arrival replaces it."""
    upload(store, WHOLE, sidecar(captured_at=content))
    assert receive(store, ledger, pending_uploads(store), taxonomy, params) == ReceptionCounts(received=1)
    assert "arrival taken" in str(frames_in_state(ledger, "received")[0].note)


def test_a_published_release_needs_no_note(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A release is published if its manifest lies under models/."""
    store.put("models/r7/manifest.json", b"{}")
    upload(store, WHOLE, sidecar(release="r7"))
    receive(store, ledger, pending_uploads(store), taxonomy, params)
    assert frames_in_state(ledger, "received")[0].note is None


def test_an_upload_with_a_wrong_name_or_size_goes_to_quarantine(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A wrong checksum, an invalid key and a file that is too large are refused.

    The correct frame is still received later.
    """
    upload(store, WHOLE, name="0" * 64)
    upload(store, WHOLE, name="holiday")
    upload(store, WHOLE + bytes(2000))
    small = params.model_copy(update={"max_bytes": len(WHOLE) + 1000})
    assert receive(store, ledger, pending_uploads(store), taxonomy, small) == ReceptionCounts(quarantined=3)
    assert sorted(str(row.quarantine_reason) for row in frames_in_state(ledger, "quarantined")) == [
        "bad-key",
        "too-many-bytes",
        "wrong-checksum",
    ]
    upload(store, WHOLE)
    assert receive(store, ledger, pending_uploads(store), taxonomy, small) == ReceptionCounts(received=1)


@pytest.mark.parametrize(
    "key",
    [
        "bin/../2026-11-20",
        "../2026-11-20",
        ".bin/2026-11-20",
        "a b/2026-11-20",
        "bin/x",
        "bin/2026-11-20/y",
        "b" * 65 + "/2026-11-20",
    ],
)
def test_an_invalid_inbox_key_is_refused(key: str) -> None:
    """Only inbox/<bin>/<date>/<sha256> is a frame's key."""
    assert parse_inbox_key(f"inbox/{key}/{'a' * 64}.json") is None
    assert parse_inbox_key(f"inbox/bin01/2026-11-20/{'a' * 64}.json") == InboxKey(
        "bin01", "a" * 64, f"inbox/bin01/2026-11-20/{'a' * 64}"
    )


def test_an_upload_that_stays_incomplete_goes_to_quarantine(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """A frame or a sidecar alone waits for a day; a complete upload is left alone."""
    stem = f"inbox/bin01/2026-11-20/{'1' * 64}"
    store.put(f"{stem}.jpg", WHOLE)
    store.put(f"inbox/bin01/2026-11-20/{'2' * 64}.json", json.dumps(sidecar()).encode())
    whole = upload(store, WHOLE)
    assert receive(
        store, ledger, [key for key in pending_uploads(store) if key != whole], taxonomy, params
    ) == ReceptionCounts(left=1)
    assert sweep_inbox(store, ledger, params, datetime.now(UTC) + timedelta(hours=23)) == 0
    assert sweep_inbox(store, ledger, params, datetime.now(UTC) + timedelta(hours=25)) == 2
    assert [row.quarantine_reason for row in frames_in_state(ledger, "quarantined")] == ["incomplete"] * 2
    assert [found.key for found in store.list("inbox/")] == [whole.replace(".json", ".jpg"), whole]


def test_a_frame_with_a_small_new_item_is_no_duplicate(
    store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, params: IngestParams
) -> None:
    """An unchanged frame of a burst is a duplicate.

    A frame with one more small item is accepted, whatever its perceptual hash.
    """
    more = scene(1)
    more.paste(Image.new("RGB", (9, 7), "white"), (30, 30))
    for minute, picture in enumerate((jpeg(scene(1)), jpeg(scene(1), quality=85), jpeg(more))):
        upload(store, picture, sidecar(captured_at=(NOON + timedelta(minutes=minute)).isoformat(), burst="b"))
    receive(store, ledger, pending_uploads(store), taxonomy, params)
    assert (deduplicate(store, ledger, params).accepted, len(frames_in_state(ledger, "duplicate"))) == (2, 1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"decode_memory_mb": 256, "max_pixels": 10**9}, "memory|256 MB"),
        ({"decode_wall_seconds": 0.0001}, "took more than 0.0001 s"),
    ],
    ids=["memory", "time"],
)
def test_a_picture_that_exceeds_the_decoding_limits_is_refused(change: dict[str, Any], what: str) -> None:
    """The process that decodes it fails or is killed, twice.

    A new process decodes the next picture.
    """
    with DecoderPool(Params(decoders=1, **change)) as decoders:
        with pytest.raises(UnfitImage) as caught:
            # Too narrow to be decoded at a part of its size.
            decoders.decode(jpeg(Image.effect_noise((65_000, 380), 1).convert("RGB"), quality=10))
        assert caught.value.fault == "too-costly"
        assert any(part in caught.value.what for part in what.split("|"))
        if "decode_memory_mb" in change:
            assert decoders.decode(WHOLE).width == 96


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda at, new: WHOLE[:at] + new + WHOLE[at + len(new) :],
        st.integers(0, len(WHOLE)),
        st.binary(max_size=4),
    )
)
def test_any_bytes_are_cleaned_or_refused(data: bytes) -> None:
    """Cleaning the result again does not change it."""
    try:
        clean = clean_jpeg(data)
    except UnfitImage:
        return
    assert clean_jpeg(clean.data).data == clean.data


@given(
    st.lists(st.tuples(st.sampled_from([*range(0xE0, 0xF0), 0xFE]), st.binary(max_size=60)), max_size=6),
    st.binary(max_size=50),
    st.booleans(),
    st.booleans(),
)
def test_cleaning_keeps_every_pixel(
    segments: list[tuple[int, bytes]], behind: bytes, progressive: bool, grey: bool
) -> None:
    """Segments before the pixels and bytes after them are removed; the pixels stay the same bit for bit."""
    plain = jpeg(scene(1).convert("L" if grey else "RGB"), progressive=progressive)
    secret = [(marker, b"SECRET" + payload) for marker, payload in segments]
    extra = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload for marker, payload in secret
    )
    clean = clean_jpeg(plain[:2] + extra + plain[2:] + behind)
    assert clean.data == plain
    assert (clean.width, clean.height, clean.dropped) == (96, 72, len(extra) + len(behind))


def test_all_metadata_is_removed_and_colours_stay() -> None:
    """EXIF with GPS, an ICC profile, a comment and the JFIF thumbnail are removed.

    The Adobe segment stays because it changes the colours.
    """
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (52.0, 4.0, 3.0)
    exif[0x010F] = "MAKER"
    rgb = jpeg(scene(1), exif=exif, icc_profile=b"PROFILE" * 20, comment=b"COMMENT", keep_rgb=True)
    clean = clean_jpeg(rgb)
    for part in (b"Exif", b"MAKER", b"PROFILE", b"COMMENT", b"ICC"):
        assert part in rgb
        assert part not in clean.data
    assert b"Adobe" in clean.data
    assert _pixels(clean.data) == _pixels(rgb)


def _pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.binary(max_size=200)
    | values.map(lambda value: json.dumps(sidecar(detections=value, reason=value)).encode())
)
def test_any_sidecar_is_parsed_or_refused(data: bytes) -> None:
    """The message of a refusal has at most 2,000 characters."""
    message = ""
    try:
        parse_sidecar(data, InboxKey("bin01", "a" * 64, "inbox/bin01/2026-11-20/" + "a" * 64))
    except BadSidecar as bad:
        message = str(bad)
    assert len(message) <= 2000


numbers = st.floats(-1e6, 1e6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Shoe", "Dragon"]), st.floats(0, 1), st.lists(numbers, min_size=4, max_size=4)
        ),
        max_size=5,
    )
)
def test_usable_boxes_lie_in_the_frame(boxes: list[tuple[str, float, list[float]]]) -> None:
    """They have a known label and an area, and come with the highest score first."""
    detections = [{"label": label, "score": score, "box": box} for label, score, box in boxes]
    content = sidecar(detections=detections)
    read = parse_sidecar(json.dumps(content).encode(), InboxKey("bin01", "a" * 64, "x"))
    kept, _ = usable_boxes(read.detections, 96, 72, {"Shoe"})
    assert [box.confidence for box in kept] == sorted((box.confidence for box in kept), reverse=True)
    for box in kept:
        x, y, w, h = box.xywh
        assert box.label == "Shoe"
        assert min(x, y) >= 0
        assert min(w, h) > 0
        assert x + w <= 96.001
        assert y + h <= 72.001
