"""One bin cannot take ingest over: what is over its quota of a day waits in the inbox, and is not lost."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.support.memory_store import MemoryStore
from ingest import (
    DecoderPool,
    DeduplicationCounts,
    IngestParams,
    IngestRound,
    ReceptionCounts,
    admit_uploads,
    deduplicate,
    drain_inbox,
    ingest_due,
    receive,
)
from ingest import quotas as quotas_module
from ingest.inbox import bin_of
from ingest.quotas import Quotas
from tests.ingest.uploads import jpeg, scene, sidecar, upload
from trashnet.ledger import BinDay, Ledger
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    """One decoding process for all tests here."""
    with DecoderPool(IngestParams(decoders=1)) as running:
        yield running


class Inbox:
    """An inbox that is drained as the flow drains it; gives up where draining does not end."""

    def __init__(self, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool) -> None:
        self.store, self.ledger, self.taxonomy, self.decoders = store, ledger, taxonomy, decoders

    def send(self, bin_id: str, *numbers: int) -> None:
        """Uploads of a bin."""
        for number in numbers:
            upload(self.store, jpeg(scene(number)), sidecar(bin_id), bin_id=bin_id)

    def drain(self, params: IngestParams, now: datetime | None = None) -> list[IngestRound]:
        """All rounds until nothing is left that may be taken in."""
        rounds = []
        for done in drain_inbox(
            lambda before: admit_uploads(self.store, self.ledger, params, before, now=now),
            lambda keys: receive(
                self.store, self.ledger, keys, self.taxonomy, params, decoders=self.decoders
            ),
            lambda: deduplicate(self.store, self.ledger, params),
        ):
            rounds.append(done)
            assert len(rounds) < 9, "it goes round without progress"
        return rounds

    def left(self) -> Counter[str]:
        """Complete uploads in the inbox, by bin."""
        return Counter(
            bin_of(found.key) for found in self.store.list("inbox/") if found.key.endswith(".json")
        )

    def today(self) -> dict[str, BinDay]:
        """The counters of today."""
        return self.ledger.bin_days(datetime.now(UTC).date())


@pytest.fixture
def inbox(ledger: Ledger, taxonomy: Taxonomy, decoders: DecoderPool, store: ObjectStore) -> Inbox:
    """An empty inbox on a real S3 server."""
    return Inbox(store, ledger, taxonomy, decoders)


def test_what_is_over_a_bins_quota_waits_and_the_other_bins_do_not(
    inbox: Inbox, params: IngestParams
) -> None:
    """Of 7 uploads with a quota of 4, 3 wait, are counted, and start no run; the next day takes them in."""
    params = params.model_copy(update={"uploads_per_bin_and_day": 4})
    inbox.send("bin01", *range(7))
    inbox.send("bin02", 7, 8)
    assert sum((done.received for done in inbox.drain(params)), ReceptionCounts()) == ReceptionCounts(6)
    assert inbox.left() == {"bin01": 3}
    sent = inbox.today()
    assert {bin_id: (day.uploads, day.uploads_waiting) for bin_id, day in sent.items()} == {
        "bin01": (4, 3),
        "bin02": (2, 0),
    }
    assert not ingest_due(inbox.store, inbox.ledger, params)
    assert inbox.drain(params) == [IngestRound(0, ReceptionCounts(), DeduplicationCounts())]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    inbox.drain(params, tomorrow)
    assert inbox.left() == {}
    assert inbox.ledger.count_by_state() == {"accepted": 9}


def test_a_raised_quota_takes_in_what_waits(inbox: Inbox, params: IngestParams) -> None:
    """The operator raises the number: ingest is due, and nothing waits any longer."""
    low = params.model_copy(update={"uploads_per_bin_and_day": 1})
    inbox.send("bin01", 0, 1)
    inbox.drain(low)
    assert inbox.today()["bin01"].uploads_waiting == 1
    none = params.model_copy(update={"uploads_per_bin_and_day": None})
    assert ingest_due(inbox.store, inbox.ledger, none)
    inbox.drain(none)
    assert (inbox.today()["bin01"].uploads, inbox.today()["bin01"].uploads_waiting) == (2, 0)


def test_bytes_are_counted_and_bounded(inbox: Inbox, params: IngestParams) -> None:
    """Every byte of pictures and sidecars counts; the quota of two uploads' bytes lets two in."""
    inbox.send("bin01", *range(4))
    sizes = [stored.size for stored in inbox.store.list("inbox/")]  # picture, sidecar, picture, sidecar, ...
    params = params.model_copy(update={"bytes_per_bin_and_day": sum(sizes[:4])})
    inbox.drain(params)
    assert inbox.left() == {"bin01": 2}
    assert inbox.today()["bin01"] == BinDay(2, sum(sizes[:4]), 2)


def test_an_upload_that_is_larger_than_the_quota_does_not_wait_for_ever(
    inbox: Inbox, params: IngestParams
) -> None:
    """A bin's first upload of a day is taken in, whatever its size."""
    inbox.send("bin01", 0, 1)
    inbox.drain(params.model_copy(update={"bytes_per_bin_and_day": 1}))
    assert inbox.left() == {"bin01": 1}


def test_a_repeated_upload_counts_once(inbox: Inbox, params: IngestParams) -> None:
    """A bin that sends a frame again, because it heard no answer, uses up its quota once."""
    params = params.model_copy(update={"uploads_per_bin_and_day": 3})
    inbox.send("bin01", 0, 1)
    inbox.drain(params)
    inbox.send("bin01", 0, 1, 2)
    inbox.drain(params)
    assert inbox.left() == {}
    assert inbox.today()["bin01"].uploads == 3


def test_a_picture_with_other_metadata_counts_again(inbox: Inbox, params: IngestParams) -> None:
    """The same pixels with a new comment are other bytes: nobody sends them for nothing."""
    for comment in (b"a", b"b", b"c"):
        upload(inbox.store, jpeg(scene(0), comment=comment))
    inbox.drain(params)
    assert inbox.today()["bin01"].uploads == 3


def test_refused_uploads_count_too(inbox: Inbox, params: IngestParams) -> None:
    """A bin that sends what is no picture is bounded as others are; its folder counts, not its sidecar."""
    params = params.model_copy(update={"uploads_per_bin_and_day": 2})
    for number in range(4):
        upload(inbox.store, b"no picture %d" % number, b"{}" if number % 2 else None)
    inbox.drain(params)
    assert inbox.left() == {"bin01": 2}
    assert inbox.today()["bin01"].uploads == 2


def test_sidecars_without_pictures_use_no_quota(inbox: Inbox, params: IngestParams) -> None:
    """One that a dead run left, or whose picture is still to come, keeps nothing out, and draining ends."""
    params = params.model_copy(update={"uploads_per_bin_and_day": 1})
    for number in range(3):
        inbox.store.put(f"inbox/bin01/2026-11-19/{number:064x}.json", b"{}")
    inbox.send("bin01", 0)
    inbox.drain(params)
    assert inbox.left() == {"bin01": 3}
    assert inbox.ledger.count_by_state() == {"accepted": 1}


def test_an_object_between_picture_and_sidecar_does_not_make_them_two(
    inbox: Inbox, params: IngestParams
) -> None:
    """`X.jpg.part` sorts between `X.jpg` and `X.json`: the upload is complete, and counts with both sizes."""
    key = upload(inbox.store, jpeg(scene(0)))
    inbox.store.put(key.replace(".json", ".jpg.part"), b"half")
    size = sum(stored.size for stored in inbox.store.list("inbox/")) - len(b"half")
    quotas = params.model_copy(update={"uploads_per_bin_and_day": 1})
    inbox.drain(quotas)
    assert inbox.today()["bin01"] == BinDay(1, size, 0)


def test_a_flood_of_one_bin_is_not_listed_to_its_end(
    inbox: Inbox, params: IngestParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many waiting uploads the listing goes on behind the bin's folder, and skips no other bin."""
    monkeypatch.setattr(quotas_module, "MAX_COUNTED_WAITING", 2)
    params = params.model_copy(update={"uploads_per_bin_and_day": 1})
    names = ["bin1", "bin1-a", "bin1.a", "bin10", "bin1A", "bin2"]  # every way to sort around `bin1/`
    inbox.send("bin1", *range(9))
    for number, name in enumerate(names[1:]):
        inbox.send(name, 10 + number)
    admitted = admit_uploads(inbox.store, inbox.ledger, params)
    assert Counter(map(bin_of, admitted.keys)) == Counter(names)
    assert admitted.waiting == {"bin1": 2}


def test_what_lies_in_no_bins_folder_is_counted_together() -> None:
    """Names that bins do not have share one quota, whatever they are."""
    keys = ("inbox/a.json", "inbox/../b.json", "inbox/" + "c" * 65 + "/d.json", "inbox/ /e.json")
    assert {bin_of(key) for key in keys} == {"-"}
    assert bin_of("inbox/bin.1/2026-11-20/x.json") == "bin.1"


@given(
    uploads=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=30),
    most_uploads=st.none() | st.integers(1, 6),
    most_bytes=st.none() | st.integers(1, 30),
)
def test_no_bin_is_admitted_more_than_its_quota(
    uploads: list[tuple[str, int]], most_uploads: int | None, most_bytes: int | None
) -> None:
    """Whatever bins send, each stays within both numbers, but for a first upload that is itself too large."""
    params = IngestParams(uploads_per_bin_and_day=most_uploads, bytes_per_bin_and_day=most_bytes)
    quotas = Quotas(params, {})
    admitted: dict[str, list[int]] = {"a": [], "b": []}
    for bin_id, size in uploads:
        if quotas.admit(bin_id, size):
            admitted[bin_id].append(size)
    for sizes in admitted.values():
        assert most_uploads is None or len(sizes) <= most_uploads
        assert most_bytes is None or len(sizes) <= 1 or sum(sizes) <= most_bytes
    if most_uploads is most_bytes is None:
        assert sum(map(len, admitted.values())) == len(uploads)


@settings(max_examples=20, deadline=None)
@given(floods=st.dictionaries(st.sampled_from(["bin1", "bin10", "bin2"]), st.integers(1, 12), min_size=1))
def test_every_complete_upload_is_admitted_or_waits(floods: dict[str, int]) -> None:
    """None is forgotten by the listing: the admitted and the waiting of each bin are all that it sent."""

    class NoLedger:
        """The two verbs of the ledger, without counts."""

        def bin_days(self, _day: object) -> dict[str, BinDay]:
            return {}

        def record_waiting(self, *_: object) -> None:
            return

    store = MemoryStore()
    for bin_id, count in floods.items():
        for number in range(count):
            upload(store, b"%d" % number, b"{}", bin_id=bin_id)
    admission = admit_uploads(store, NoLedger(), IngestParams(uploads_per_bin_and_day=5))  # type: ignore[arg-type]
    assert Counter(map(bin_of, admission.keys)) == {name: min(count, 5) for name, count in floods.items()}
    assert admission.waiting == {name: count - 5 for name, count in floods.items() if count > 5}
