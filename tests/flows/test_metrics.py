"""Prometheus metrics of the event gateway, and the alert rules that read them."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flows.debouncer import Debouncer
from flows.event_gateway import make_app
from flows.events import INBOX
from operations.stack import Server
from tests.conftest import REPOSITORY
from tests.flows.test_event_gateway import KEY, SECRET, RecordedEvents, settings
from trashnet.ledger import FrameRow, Ledger, Removal, open_ledger
from trashnet.settings import SECRET_HEADER

ALERTS = yaml.safe_load((REPOSITORY / "deploy/alerts.yaml").read_text(encoding="utf-8"))
FROM_PROMETHEUS = {"up"}  # of every target: not ours
Samples = dict[tuple[str, str], float]  # by name and by the value of the first label


@pytest.fixture(autouse=True)
def no_prefect() -> Iterator[None]:
    """Nobody answers at Prefect's address unless a test says otherwise."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        yield


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three accepted frames, the oldest captured two hours ago, and one upload refused as broken."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    row = FrameRow(sha256="0" * 64, uploaded_sha256="0" * 64, state="accepted", inbox_key=KEY)
    for hours in range(3):
        sha256 = f"{hours:064x}"
        captured = datetime.now(UTC) - timedelta(hours=hours)
        assert ledger.add(replace(row, sha256=sha256, uploaded_sha256=sha256, captured_at=captured))
    refused = replace(row, state="quarantined", quarantine_reason="broken")
    assert ledger.add(replace(refused, sha256="f" * 64, uploaded_sha256="f" * 64))
    ledger.record_removal(Removal("quarantine/duplicate", 3, 4000))
    yield ledger
    ledger.close()


def scrape(client: TestClient) -> Samples:
    """The samples of `/metrics`, read by Prometheus's own parser."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_ledger_s_numbers_are_there(ledger: Ledger) -> None:
    """Frames by state, refused uploads by reason, and the age of the oldest frame that waits."""
    with TestClient(make_app(settings(ledger_url=ledger.url), RecordedEvents().emit)) as client:
        samples = scrape(client)
    assert samples["trashnet_frames", "accepted"] == 3
    assert samples["trashnet_frames", "quarantined"] == 1
    assert samples["trashnet_frames", "tasked"] == 0
    assert samples["trashnet_quarantined_frames", "broken"] == 1
    assert samples["trashnet_oldest_frame_age_seconds", "accepted"] == pytest.approx(7200, abs=60)
    assert samples["trashnet_oldest_frame_age_seconds", "tasked"] == 0
    assert samples["trashnet_removed", "quarantine/duplicate"] == 3
    assert samples["trashnet_removed_bytes", "quarantine/duplicate"] == 4000
    assert samples["trashnet_up", "ledger"] == 1


def test_what_is_down_says_so_and_hides_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    """Without a ledger, or without Prefect, a scrape still succeeds, and old numbers are not shown as new."""
    with TestClient(make_app(settings(ledger_url=ledger.url), RecordedEvents().emit)) as client:
        samples = scrape(client)
    assert samples["trashnet_up", "prefect"] == 0
    assert samples["trashnet_frames", "accepted"] == 3
    missing = f"sqlite:///{tmp_path}/none.sqlite"
    with TestClient(make_app(settings(ledger_url=missing), RecordedEvents().emit)) as client:
        samples = scrape(client)
    assert samples["trashnet_up", "ledger"] == 0
    assert ("trashnet_frames", "accepted") not in samples


def test_a_scrape_after_a_scrape_costs_the_ledger_nothing(ledger: Ledger) -> None:
    """Numbers are read at most every 15 s, however often they are asked for."""
    with TestClient(make_app(settings(ledger_url=ledger.url), RecordedEvents().emit)) as client:
        scrape(client)
        row = FrameRow(sha256="e" * 64, uploaded_sha256="e" * 64, state="accepted", inbox_key=KEY)
        assert ledger.add(row)
        assert scrape(client)["trashnet_frames", "accepted"] == 3


def test_flow_runs_are_counted_once(
    ledger: Ledger, prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended is in its flow's histogram under the state that it ended in, after every scrape."""

    @flow(name="counted-once")
    def succeed() -> None:
        pass

    @flow(name="counted-once")
    def fail() -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr("flows.metrics.FRESH_SECONDS", 0.0)
    with (
        temporary_settings({PREFECT_API_URL: f"{prefect_server.url}/api"}),
        TestClient(make_app(settings(ledger_url=ledger.url), RecordedEvents().emit)) as client,
    ):
        scrape(client)
        succeed()
        succeed()
        with pytest.raises(ValueError, match="on purpose"):
            fail()
        for _ in range(2):
            text = client.get("/metrics").text
            assert 'trashnet_flow_run_seconds_count{flow="counted-once",state="completed"} 2.0' in text
            assert 'trashnet_flow_run_seconds_count{flow="counted-once",state="failed"} 1.0' in text


def test_notifications_and_events_are_counted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two uploads announced together are two notifications and one event."""
    monkeypatch.setattr(
        "flows.event_gateway.Debouncer", lambda emit: Debouncer(emit, quiet=0.1, max_wait=1.0)
    )
    recorded = RecordedEvents()
    with TestClient(make_app(settings(ledger_url=ledger.url), recorded.emit)) as client:
        record = {"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": KEY}}}
        posted = client.post("/s3", json={"Records": [record, record]}, headers={SECRET_HEADER: SECRET})
        assert posted.status_code == 202
        deadline = time.monotonic() + 10
        while not recorded.emitted and time.monotonic() < deadline:
            time.sleep(0.05)
        samples = scrape(client)
    assert samples["trashnet_notifications_total", INBOX] == 2
    assert samples["trashnet_events_total", INBOX] == 1


def test_every_alert_reads_metrics_that_exist(ledger: Ledger) -> None:
    """A renamed metric would silence an alert. Each alert has a summary and an entry of the runbook."""
    with TestClient(make_app(settings(ledger_url=ledger.url), RecordedEvents().emit)) as client:
        known = set(re.findall(r"^# TYPE (\w+) ", client.get("/metrics").text, re.M)) | FROM_PROMETHEUS
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(rules) >= 6
    for rule in rules:
        without_labels = re.sub(r"\{[^}]*\}", "", rule["expr"])
        names = set(re.findall(r"\b(?:trashnet_\w+|up)\b", without_labels))
        assert names, rule["expr"]
        assert {name.removesuffix("_count") for name in names} <= known, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "runbook"}
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^### (.+)$", (REPOSITORY / page).read_text(encoding="utf-8"), re.M)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in headings}
