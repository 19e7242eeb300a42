"""What monitoring is told about the gate, and what each look costs."""

from pathlib import Path

from benchmarks.support.memory_store import MemoryStore
from export import GateState, GateWatch, frames_wanted, override, promote
from tests.export.judgements import record_judgement
from tests.export.test_champions import publish
from trashnet.models import STUDENT


class CountingStore(MemoryStore):
    """Notes which objects are read and which prefixes are listed."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.listed: list[str] = []

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Note the key, and read."""
        self.read.append(key)
        return super().get(key, limit)

    def list(self, prefix: str, start_after: str | None = None):  # type: ignore[no-untyped-def]
        """Note the prefix, and list."""
        self.listed.append(prefix)
        return super().list(prefix, start_after)


def test_a_candidate_waits_for_its_judgement_and_is_held_until_it_is_decided(tmp_path: Path) -> None:
    """Times are counted from its publication; the champion's age too."""
    store = MemoryStore()
    watch = GateWatch(store)
    nothing = GateState({}, None, {}, {"teacher": 0, "student": 0}, 0, {})
    assert watch.look() == nothing
    first = publish(store, tmp_path, 1)
    assert watch.look().waiting_since == first.published_at
    record_judgement(store, first, 1, wanted=70, teacher="passes", student="holds")
    promote(store, first, "teacher", "no worse")
    state = watch.look()
    assert state.outcomes == {"teacher": "passes", "student": "holds"}
    assert (state.waiting_since, state.held_since) == (None, {"student": first.published_at})
    assert state.frames_wanted == 70
    assert state.champions == {"teacher": first.published_at}
    record_judgement(store, first, 2, teacher="passes", student="passes")
    promote(store, first, "student", "no worse")
    state = watch.look()
    assert (state.held_since, state.frames_wanted) == ({}, 0)
    assert set(state.champions) == {"teacher", "student"}


def test_what_a_person_decided_waits_for_nothing(tmp_path: Path) -> None:
    """A model that somebody put into use is neither held nor waiting, and no frame is asked for for it."""
    store = MemoryStore()
    unjudged = publish(store, tmp_path, 1, (STUDENT.file,))
    override(store, unjudged.version, ["student"], by="ann", reason="to begin with")
    assert GateWatch(store).look().waiting_since is None
    held = publish(store, tmp_path, 2, (STUDENT.file,))
    record_judgement(store, held, 1, wanted=70, student="holds")
    assert frames_wanted(store) == GateWatch(store).look().frames_wanted == 70
    override(store, held.version, ["student"], by="ann", reason="the bins need it")
    state = GateWatch(store).look()
    assert (state.outcomes, state.held_since) == ({"student": "holds"}, {})
    assert frames_wanted(store) == state.frames_wanted == 0


def test_blocked_candidates_are_counted_in_a_row(tmp_path: Path) -> None:
    """By candidates, not by judgements, and each role for itself; one that is not blocked ends the row."""
    store = MemoryStore()
    one, two, three = (publish(store, tmp_path, number) for number in (1, 2, 3))
    record_judgement(store, one, 1, teacher="blocks", student="blocks")
    record_judgement(store, two, 2, teacher="holds", student="blocks")
    record_judgement(store, three, 3, teacher="blocks", student="holds")
    record_judgement(store, three, 4, teacher="blocks", student="blocks")
    watch = GateWatch(store)
    assert watch.look().blocked_in_a_row == {"teacher": 1, "student": 3}
    four = publish(store, tmp_path, 4, (STUDENT.file,))
    record_judgement(store, four, 5, student="passes")
    assert watch.look().blocked_in_a_row == {"teacher": 1, "student": 0}
    assert watch.look() == GateWatch(store).look()


def test_a_look_without_news_reads_no_judgement(tmp_path: Path) -> None:
    """However many candidates there were, it costs pointers, manifests and one short listing."""
    store = CountingStore()
    for number in range(1, 6):
        record_judgement(store, publish(store, tmp_path, number), number, teacher="blocks", student="blocks")
    watch = GateWatch(store)
    before = watch.look()
    store.read, store.listed = [], []
    assert watch.look() == before
    assert not [key for key in store.read if "judgements" in key]
    assert [prefix.count("/") for prefix in store.listed] == [3], "only the newest candidate's judgements"
    newest = publish(store, tmp_path, 6)
    record_judgement(store, newest, 6, teacher="blocks", student="blocks")
    store.read = []
    assert watch.look().blocked_in_a_row == {"teacher": 6, "student": 6}
    read = {key for key in store.read if "judgements" in key}
    assert len(read) == 1, "those of earlier candidates are known"
