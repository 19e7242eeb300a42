"""What retention removes from quarantine, whatever lies there and whenever it dies: never a frame in use."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed
from benchmarks.support.memory_store import MemoryStore
from ingest import IngestParams, deduplicate, receive, remove_expired
from tests.ingest.uploads import jpeg, scene, upload
from tests.trashnet.ledger.inspection import history
from trashnet.ledger import STATES, FrameRow, Ledger, Removal, State, open_ledger
from trashnet.ledger.tables import frames
from trashnet.quarantine import QuarantineReason
from trashnet.retention import RetentionParams
from trashnet.store import ObjectStore, StoredObject
from trashnet.taxonomy import Taxonomy

PARAMS = RetentionParams(
    quarantine_days=90, quarantine_reason_days={QuarantineReason.DUPLICATE: 30, QuarantineReason.STRAY: None}
)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
REFUSED = ("quarantined", "duplicate")
KEPT: tuple[State, ...] = tuple(state for state in STATES if state not in REFUSED)
# Where an object may lie: frames, models, dataset versions and uploads are nobody's to remove here.
ELSEWHERE = ("frames/{}.jpg", "inbox/bin01/2026-11-20/{}.jpg", "models/{}/m.tflite", "dvc/files/md5/ab/{}")


@dataclass(frozen=True)
class Place:
    """An object, how many days ago it came, and the row that its name belongs to, if any."""

    key: str
    age: float
    state: State | None
    is_named: bool  # whether the row's key is this object's


def place(number: int, folder: str, kind: str, age: float, state: State | None, is_named: bool) -> Place:
    """An object in quarantine whose name is a number."""
    return Place(f"quarantine/{folder}/{number:064x}.{kind}", age, state, is_named)


folders = st.sampled_from([*QuarantineReason, "no-such-reason"])
ages = st.sampled_from([0.5, 29.0, 31.0, 89.0, 91.0, 1000.0])
places = st.builds(
    place,
    st.integers(0, 3),
    folders,
    st.sampled_from(["jpg", "json", "bin"]),
    ages,
    st.sampled_from([None, *STATES]),
    st.booleans(),
)


def fill(store: MemoryStore, ledger: Ledger, found: list[Place]) -> None:
    """These objects, each with what else has its name, and the rows of the first object of a name."""
    for one in found:
        sha, at = one.key.rpartition("/")[2].partition(".")[0], NOW - timedelta(days=one.age)
        store.objects[one.key] = (one.key.encode(), at)
        for other in ELSEWHERE:
            store.objects[other.format(sha)] = (b"needed", NOW - timedelta(days=2000))
        if one.state is None or ledger.frame(sha) is not None:
            continue
        key = one.key if one.is_named else f"frames/{sha}.jpg"
        reason = one.key.split("/")[1] if one.state in REFUSED else None
        values = {"state": one.state, "inbox_key": "", "key": key, "quarantine_reason": reason}
        row = FrameRow(sha256=sha, uploaded_sha256=sha, **values)  # type: ignore[arg-type]
        assert ledger.add(row)
        with ledger.transaction() as connection:
            connection.execute(update(frames).where(frames.c.sha256 == sha).values(changed_at=at))


def snapshot(ledger: Ledger, shas: list[str]) -> list[object]:
    """The rows of frames, without the time of their last change, and what the ledger counted."""
    rows = [ledger.frame(sha) for sha in shas]
    seen = [
        row and (row.state, row.key, row.note, [t[3] for t in history(ledger, row.sha256)]) for row in rows
    ]
    return [*seen, ledger.removals()]


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A ledger without frames, to copy: migrating takes longer than a run."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        open_ledger(f"sqlite:///{path}").close()
        yield path


@pytest.mark.heavy
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(places, max_size=8), dies_at=st.integers(0, 12))
def test_no_frame_in_use_loses_anything_and_a_death_changes_nothing(
    template: Path, found: list[Place], dies_at: int
) -> None:
    """Over random stores and ledgers: what goes is old, refused, in quarantine, and told by its row.

    A run that dies at any effect and is run again, and one that is run twice, end as one run does.
    """
    shas = sorted({one.key.rpartition("/")[2].partition(".")[0] for one in found})
    ends = []
    for dies in (None, dies_at):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.sqlite"
            path.write_bytes(template.read_bytes())
            store, ledger = MemoryStore(), Ledger(f"sqlite:///{path}")
            fill(store, ledger, found)
            objects, rows = dict(store.objects), {sha: ledger.frame(sha) for sha in shas}
            if dies is None:
                assert remove_expired(store, ledger, PARAMS, NOW, dry_run=True) == _planned(found, ledger)
                assert store.objects == objects
            else:
                fuse = Fuse(dies)
                dying = FusedLedger(ledger.url, fuse)
                with suppress(Killed):
                    remove_expired(FusedStore(store.objects, fuse), dying, PARAMS, NOW)
                dying.close()
            remove_expired(store, ledger, PARAMS, NOW)
            once = (dict(store.objects), snapshot(ledger, shas))
            assert remove_expired(store, ledger, PARAMS, NOW) == []
            assert (dict(store.objects), snapshot(ledger, shas)) == once
            ends.append(once)
            for key in objects.keys() - store.objects.keys():
                sha = key.rpartition("/")[2].partition(".")[0]
                before, after = rows[sha], ledger.frame(sha)
                assert key.startswith("quarantine/")
                assert before is not None
                assert after is not None
                assert before.state in REFUSED
                assert after.key is None
                assert "removed from quarantine after" in str(history(ledger, sha)[-1][3])
            for sha, row in rows.items():
                if row is not None and row.state in KEPT:
                    assert ledger.frame(sha) == row
            ledger.close()
    assert ends[0] == ends[1]


def _planned(found: list[Place], ledger: Ledger) -> list[Removal]:
    """What the rules say, by another way: objects grouped by their name, each group with its row."""
    counts: dict[str, tuple[int, int]] = {}
    latest = {one.key: one for one in found}
    for key in sorted(latest):
        _, folder, name = key.split("/")
        sha = name.partition(".")[0]
        row = ledger.frame(sha)
        if row is None or row.state not in REFUSED or folder not in set(QuarantineReason):
            continue
        group = [k for k in latest if k.startswith(f"quarantine/{folder}/{sha}.")]
        days = PARAMS.days_in_quarantine(QuarantineReason(folder))
        assert row.changed_at is not None
        youngest = max([NOW - timedelta(days=latest[k].age) for k in group] + [row.changed_at])
        if row.key in group and days is not None and youngest <= NOW - timedelta(days=days):
            count, size = counts.get(folder, (0, 0))
            counts[folder] = count + 1, size + len(key)
    return [Removal(f"quarantine/{folder}", *sums) for folder, sums in sorted(counts.items())]


def test_the_reasons_of_refusal_and_duplicates_expire_on_a_real_store(
    store: ObjectStore, ledger: Ledger, params: IngestParams, taxonomy: Taxonomy
) -> None:
    """Of a good frame, its re-encode and a broken upload the last two go, each after its own days.

    The frame stays, and an upload that comes again afterwards changes nothing.
    """
    good, broken = jpeg(scene(1)), jpeg(scene(2))[:900]
    keys = [upload(store, good), upload(store, jpeg(scene(1), quality=60)), upload(store, broken)]
    receive(store, ledger, keys, taxonomy, params)
    deduplicate(store, ledger, params)
    assert ledger.count_by_state() == {"accepted": 1, "duplicate": 1, "quarantined": 1}
    now = datetime.now(UTC)
    assert remove_expired(store, ledger, PARAMS, now + timedelta(days=29)) == []
    first = remove_expired(store, ledger, PARAMS, now + timedelta(days=31))
    assert [(one.what, one.count) for one in first] == [("quarantine/duplicate", 1)]
    second = remove_expired(store, ledger, PARAMS, now + timedelta(days=91))
    assert [(one.what, one.count) for one in second] == [("quarantine/broken-image", 2)]
    assert second[0].bytes > len(broken)
    assert list(store.list("quarantine/")) == []
    assert len(list(store.list("frames/"))) == 1
    assert ledger.removals() == [second[0], first[0]]
    assert ledger.count_by_state() == {"accepted": 1, "duplicate": 1, "quarantined": 1}
    receive(store, ledger, [upload(store, broken)], taxonomy, params)
    assert [stored.key for stored in store.list("")] == [next(store.list("frames/")).key]


def test_an_object_that_no_row_names_gets_a_row_and_the_days_of_others(ledger: Ledger) -> None:
    """Such as what is left of a refused upload that was accepted later."""
    store = MemoryStore()
    key = f"quarantine/too-costly/{'a' * 64}.jpg"
    store.objects[key] = (b"12345", NOW)
    assert remove_expired(store, ledger, PARAMS, NOW + timedelta(hours=1)) == []
    assert ledger.count_by_state() == {}  # the row may be about to come
    assert remove_expired(store, ledger, PARAMS, NOW + timedelta(days=2)) == []
    assert ledger.count_by_state() == {"quarantined": 1}
    assert list(store.objects) == [key]
    later = datetime.now(UTC) + timedelta(days=91)
    assert remove_expired(store, ledger, PARAMS, later) == [Removal("quarantine/too-costly", 1, 5)]
    assert store.objects == {}
    assert ledger.count_by_state() == {"quarantined": 1}


def test_a_key_that_no_request_can_name_stops_nothing(ledger: Ledger) -> None:
    """It is left where it is."""

    class OddStore(MemoryStore):
        def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
            yield StoredObject("quarantine/./x.jpg", 1, NOW)
            yield from super().list(prefix, start_after)

    assert remove_expired(OddStore(), ledger, PARAMS, NOW) == []
