"""Prometheus metrics of the gate, as the event gateway serves them from a real store."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from starlette.testclient import TestClient

from export import override, promote
from flows import gate_metrics
from flows.event_gateway import make_app
from tests.export.judgements import record_judgement
from tests.export.test_champions import publish
from tests.flows.test_event_gateway import RecordedEvents, settings
from tests.servers import S3Server
from trashnet.ledger import open_ledger
from trashnet.settings import Settings
from trashnet.store import ObjectStore, open_store

HOUR = 3600.0


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every scrape looks; nobody answers at Prefect's address."""
    monkeypatch.setattr("flows.metrics.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("flows.gate_metrics.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("flows.gate_metrics.MAX_WAIT_SECONDS", 60.0)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        yield


@pytest.fixture
def deployed(s3_server: S3Server, fresh_bucket: str, tmp_path: Path) -> Settings:
    """A deployment with an empty bucket and an empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    open_ledger(url).close()
    made = settings(s3_server, s3_bucket=fresh_bucket, ledger_url=url)
    open_store(made).ensure_bucket()
    return made


def gate_lines(client: TestClient) -> dict[str, float]:
    """The gate's samples with their labels, as Prometheus reads them."""
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    names = ("trashnet_gate_", "trashnet_champion_", 'trashnet_up{source="store"}')
    return {name: float(value) for name, _, value in lines if name.startswith(names)}


def test_the_gate_s_word_and_the_champions_ages_are_there(deployed: Settings, tmp_path: Path) -> None:
    """A candidate waits, is held, and a champion grows old; nothing is said of what there is not."""
    store = open_store(deployed)
    with TestClient(make_app(deployed, RecordedEvents().emit)) as client:
        empty = gate_lines(client)
        assert empty['trashnet_up{source="store"}'] == 1
        assert empty["trashnet_gate_waiting_seconds"] == 0
        assert not any(name.startswith("trashnet_champion") for name in empty)
        first = publish(store, tmp_path, 1)
        assert 0 < gate_lines(client)["trashnet_gate_waiting_seconds"] < HOUR
        record_judgement(store, first, 1, wanted=70, teacher="blocks", student="holds")
        samples = gate_lines(client)
        assert samples["trashnet_gate_waiting_seconds"] == 0
        assert samples['trashnet_gate_outcome{outcome="holds",role="student"}'] == 1
        assert samples['trashnet_gate_outcome{outcome="passes",role="student"}'] == 0
        assert samples['trashnet_gate_outcome{outcome="blocks",role="teacher"}'] == 1
        assert 0 < samples['trashnet_gate_held_seconds{role="student"}'] < HOUR
        assert samples['trashnet_gate_held_seconds{role="teacher"}'] == 0
        assert samples['trashnet_gate_blocked_in_a_row{role="teacher"}'] == 1
        assert samples["trashnet_gate_frames_wanted"] == 70
        promote(store, first, "student", "no worse")
        samples = gate_lines(client)
        assert 0 < samples['trashnet_champion_age_seconds{role="student"}'] < HOUR
        assert 'trashnet_champion_age_seconds{role="teacher"}' not in samples
        second = publish(store, tmp_path, 2)
        record_judgement(store, second, 2, teacher="blocks", student="passes")
        override(store, second.version, ["teacher"], by="ann", reason="a field test")
        samples = gate_lines(client)
        assert samples['trashnet_gate_blocked_in_a_row{role="teacher"}'] == 2
        assert 'trashnet_champion_age_seconds{role="teacher"}' in samples


def test_a_store_that_cannot_be_read_shows_nothing_old(deployed: Settings, tmp_path: Path) -> None:
    """Its source is down, and no number of before stands there as if it were new, until it can be read."""
    first = publish(open_store(deployed), tmp_path, 1)
    record_judgement(open_store(deployed), first, 1, student="holds")
    with TestClient(make_app(deployed, RecordedEvents().emit)) as client:
        assert gate_lines(client)["trashnet_gate_frames_wanted"] == 100
        newest = "models/newest.json"
        pointer = open_store(deployed).get(newest)
        open_store(deployed).put(newest, b"[]")
        samples = gate_lines(client)
        assert samples['trashnet_up{source="store"}'] == 0
        assert not any("outcome" in name or "held" in name for name in samples)
        assert samples["trashnet_gate_frames_wanted"] != samples["trashnet_gate_frames_wanted"], (
            "not a number"
        )
        open_store(deployed).put(newest, pointer)
        assert gate_lines(client)["trashnet_gate_frames_wanted"] == 100


def test_a_scrape_waits_for_no_slow_store_and_asks_it_once(
    deployed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one look is under way scrapes are answered without it, and begin no other one."""
    publish(open_store(deployed), tmp_path, 1)
    answering, asked = threading.Event(), list[str]()
    get = ObjectStore.get_with_etag

    def slow(store: ObjectStore, key: str, limit: int | None = None) -> tuple[bytes, str | None]:
        asked.append(key)
        answering.wait(60)
        return get(store, key, limit)

    monkeypatch.setattr(ObjectStore, "get_with_etag", slow)
    monkeypatch.setattr(gate_metrics, "MAX_WAIT_SECONDS", 0.2)
    with TestClient(make_app(deployed, RecordedEvents().emit)) as client:
        for _ in range(3):
            assert gate_lines(client)['trashnet_up{source="store"}'] == 0
        assert len(asked) <= 1
        answering.set()
        deadline = time.monotonic() + 60
        while gate_lines(client)['trashnet_up{source="store"}'] == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert gate_lines(client)["trashnet_gate_waiting_seconds"] > 0
