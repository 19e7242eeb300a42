"""Retraining and publishing on Prefect's real server: one queue with one slot, and events with a commit."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL, temporary_settings

from export import Candidate
from flows import publish_candidate, retrain_models
from flows.events import GROWN, RESOURCE
from operations.setup import deploy_flows
from operations.stack import WORK_POOL, Server, find_free_port, prefect_environment, start_prefect
from operations.work_pool import TRAINING_QUEUE
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.alone  # other tests' Prefect servers and clients in one process disturb these

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: events that other tests emitted must not start runs here."""
    server = start_prefect(tmp_path_factory.mktemp("prefect") / "home", find_free_port())
    yield server
    server.stop()


def test_retrain_and_publish_share_one_queue() -> None:
    """A publish never reads a clone that a retraining changes, on whichever machine the two would run."""
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    queues = {one["name"]: one["work_pool"].get("work_queue_name") for one in deployments}
    assert queues["retrain"] == queues["publish"] == TRAINING_QUEUE
    assert {queue for name, queue in queues.items() if name not in ("retrain", "publish")} == {None}


def test_the_queue_has_one_slot_and_an_event_s_commit_reaches_the_retraining(
    prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `trashnet setup`, and after a second one."""
    environment = prefect_environment(tmp_path / "prefect", prefect_server.url)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(REPOSITORY)
    deploy_flows()
    deploy_flows()
    api = environment["PREFECT_API_URL"]

    def ask(path: str, **body: Any) -> Any:
        reply = httpx.post(f"{api}/{path}", json=body)
        reply.raise_for_status()
        return reply.json()

    queue = httpx.get(f"{api}/work_pools/{WORK_POOL}/queues/{TRAINING_QUEUE}").json()
    assert queue["concurrency_limit"] == 1
    deployments = {one["name"]: one for one in ask("deployments/filter")}
    for name in ("retrain", "publish"):
        assert deployments[name]["work_queue_id"] == queue["id"]
    with temporary_settings({PREFECT_API_URL: api}):
        emit_event(GROWN, resource=RESOURCE, payload={"commit": COMMIT})
    only = {"id": {"any_": [deployments["retrain"]["id"]]}}
    deadline, seen = time.monotonic() + 60, set[str]()
    while not seen and time.monotonic() < deadline:
        runs = ask("flow_runs/filter", deployments=only)
        seen = {run["parameters"]["commit"] for run in runs if "commit" in run["parameters"]}
        time.sleep(0.5)
    assert seen == {COMMIT}


def test_the_run_that_trained_publishes_what_it_trained(
    prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other worker could: the models lie in this machine's clone. Its commit goes with them.

    Rooms and stages are left out; what is tested is the flow's own order.
    """
    calls: list[Any] = []
    candidate = Candidate(
        version="00001-abc", published_at=datetime.now(UTC), dataset="data-00001", turns=(), commit=COMMIT,
        files={}, scores={},
    )  # fmt: skip
    monkeypatch.setattr(retrain_models, "retrain_due", lambda _: True)
    monkeypatch.setattr(
        retrain_models,
        "prepare_pipeline",
        lambda changes, commit: calls.append(("prepare", commit)) or (tmp_path, COMMIT, ()),
    )
    monkeypatch.setattr(retrain_models, "show_scores", lambda _: None)
    monkeypatch.setattr(
        publish_candidate, "upload_candidate", lambda commit: calls.append(("publish", commit)) or candidate
    )
    url = f"{prefect_server.url}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        assert retrain_models.retrain(commit=COMMIT)
        assert retrain_models.retrain(commit="")  # an event without a commit
    first = [("prepare", COMMIT), ("publish", COMMIT)]
    assert calls == [*first, ("prepare", None), ("publish", COMMIT)]
