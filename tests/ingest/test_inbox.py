"""An inbox of any size: it is listed a stretch at a time, and nothing in it is overlooked."""

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.support.memory_store import CountingStore, MemoryStore
from ingest import Admission, InboxWatch, IngestParams, admit_uploads, has_uploads, inbox, sweep_inbox
from ingest import inbox_sweep as inbox_sweep_module
from ingest import quotas as quotas_module
from ingest.inbox import bin_of
from tests.ingest.uploads import NOON, upload
from trashnet.ledger import Ledger, open_ledger


def send(store: MemoryStore, bin_id: str, *numbers: int) -> None:
    """Uploads of a bin."""
    for number in numbers:
        upload(store, b"%d" % number, b"{}", name=f"{number:064x}", bin_id=bin_id)


def test_a_look_notices_what_no_look_before_had() -> None:
    """Two uploads are new once, the third is when it comes; a picture without its sidecar is none."""
    store = MemoryStore()
    watch = InboxWatch(store)
    assert watch.look() == 0
    send(store, "bin01", 1, 2)
    store.put("inbox/bin01/2026-11-20/x.jpg", b"")
    assert (watch.look(), watch.look()) == (2, 0)
    send(store, "bin00", 3)
    assert (watch.look(), watch.look()) == (1, 0)


def test_an_upload_that_comes_again_after_it_was_taken_in_is_new() -> None:
    """What is gone from the inbox is not remembered."""
    store = MemoryStore()
    watch = InboxWatch(store)
    send(store, "bin01", 1)
    assert watch.look() == 1
    store.objects.clear()
    assert watch.look() == 0
    send(store, "bin01", 1)
    assert watch.look() == 1


def test_a_look_lists_a_stretch_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 objects 6 a look: no look lists more, and four of them notice all 10 uploads once."""
    monkeypatch.setattr(inbox, "LISTED_PER_LOOK", 6)
    store = CountingStore()
    send(store, "bin01", *range(10))
    watch, noticed = InboxWatch(store), []
    for _ in range(4):
        store.listed = 0
        noticed.append(watch.look())
        assert store.listed <= 6
    assert noticed == [3, 3, 3, 1]
    assert [watch.look() for _ in range(8)] == [0] * 8


def test_a_bin_with_many_uploads_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood two uploads are noticed, and the uploads of the bins behind it with the same look."""
    monkeypatch.setattr(inbox, "NOTICED_PER_BIN", 2)
    store = CountingStore()
    send(store, "bin1", *range(100))
    send(store, "bin10", 1)
    send(store, "bin2", 1)
    watch = InboxWatch(store)
    assert watch.look() == 4
    assert store.listed == 8
    assert watch.look() == 0
    send(store, "bin2", 2)
    assert watch.look() == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["bin1", "bin10", "bin2"]), st.integers(0, 30)) | st.none(), max_size=60
    )
)
def test_every_upload_is_noticed_however_they_and_the_looks_follow_each_other(
    steps: list[tuple[str, int] | None],
) -> None:
    """Uploads come at any place of the listing (``None`` is a look); at the end each was noticed, once."""
    store, sent = MemoryStore(), set[tuple[str, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inbox, "LISTED_PER_LOOK", 4)
        watch, noticed = InboxWatch(store), 0
        for step in [*steps, *[None] * 40]:
            if step is None:
                noticed += watch.look()
            else:
                sent.add(step)
                send(store, *step)
        assert noticed == len(sent)


def test_waiting_ends_with_the_next_upload_or_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that comes while a run waits is found; without one the wait ends."""
    monkeypatch.setattr(inbox, "LOOK_SECONDS", 0.05)
    store = MemoryStore()
    watch = InboxWatch(store)
    assert not watch.wait(0.2)
    threading.Timer(0.2, send, (store, "bin01", 1)).start()
    assert watch.wait(20)
    assert not watch.wait(0)


def test_an_inbox_has_uploads_if_a_sidecar_lies_in_it() -> None:
    """The listing ends at the first one."""
    store = CountingStore()
    store.put("inbox/bin01/2026-11-20/x.jpg", b"")
    assert not has_uploads(store)
    send(store, "bin01", *range(9))
    store.listed = 0
    assert has_uploads(store)
    assert store.listed == 2


class NoLedger:
    """The two verbs of the ledger that admission needs, without counts."""

    def __init__(self) -> None:
        self.recorded: list[dict[str, int]] = []

    def bin_days(self, _day: object) -> dict[str, Any]:
        """No bin has sent anything."""
        return {}

    def record_waiting(self, _day: object, _what: str, counts: Counter[str]) -> None:
        """Keep what is written down."""
        self.recorded.append(dict(counts))


@settings(max_examples=50, deadline=None)
@given(
    floods=st.dictionaries(st.sampled_from(["bin1", "bin10", "bin2"]), st.integers(1, 12), min_size=1),
    at_once=st.integers(1, 9),
)
def test_admissions_in_stretches_are_together_the_whole_inbox(floods: dict[str, int], at_once: int) -> None:
    """Each upload is admitted or counted as waiting, once; the count is written down at the inbox's end.

    The ledger here counts nothing, so every stretch has the quota of 5 uploads a bin to itself.
    """
    store, ledger, params = MemoryStore(), NoLedger(), IngestParams(uploads_per_bin_and_day=5)
    for bin_id, count in floods.items():
        send(store, bin_id, *range(count))
    keys, admission = list[str](), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotas_module, "ADMITTED_AT_ONCE", at_once)
        while admission is None or admission.position is not None:
            assert not ledger.recorded
            admission = admit_uploads(store, ledger, params, admission)  # type: ignore[arg-type]
            assert len(admission.keys) <= at_once
            keys += admission.keys
    assert isinstance(admission, Admission)
    assert len(set(keys)) == len(keys)
    assert Counter(map(bin_of, keys)) + Counter(admission.waiting) == floods
    assert ledger.recorded == [admission.waiting]


def test_a_large_inbox_is_swept_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call lists a stretch, whole uploads at a time; together they quarantine all that is alone."""
    monkeypatch.setattr(inbox_sweep_module, "LISTED_PER_SWEEP", 3)
    store, ledger = CountingStore(), open_ledger("sqlite://")
    send(store, "bin01", *range(4))  # complete: they stay
    for number in range(10, 14):
        store.put(f"inbox/bin01/2026-11-20/{number:064x}.jpg", b"")
    swept, later = list[int](), NOON + timedelta(days=9)
    for _ in range(5):
        store.listed = 0
        swept.append(sweep_inbox(store, ledger, IngestParams(), later))
        assert store.listed <= 5  # the stretch, and what shows that its last upload is over
    assert swept == [0, 0, 3, 1, 0]
    assert len(store.objects) == 8 + 4
    ledger.close()


def test_a_sweep_begins_again_at_the_inboxs_beginning(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the end comes the beginning: what was too young then is swept now."""
    monkeypatch.setattr(inbox_sweep_module, "LISTED_PER_SWEEP", 2)
    store = MemoryStore()
    for number in range(3):
        store.put(f"inbox/bin01/2026-11-20/{number:064x}.jpg", b"")
    params, young = IngestParams(), NOON + timedelta(hours=2)
    assert [sweep_inbox(store, ledger, params, young) for _ in range(2)] == [0, 0]
    old = NOON + timedelta(days=9)
    assert [sweep_inbox(store, ledger, params, old) for _ in range(3)] == [2, 1, 0]
