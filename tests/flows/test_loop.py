"""The loop on real servers: S3, Label Studio, Prefect with a worker, and the event gateway."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import pytest

from dataset import Log
from synthetic import draw_scene
from tests.flows.conftest import Deployment
from trashnet.clone import Clone
from trashnet.taxonomy import Taxonomy

FRAMES = 4


def upload(deployment: Deployment, taxonomy: Taxonomy, number: int) -> tuple[str, list[dict[str, Any]]]:
    """Upload a drawn scene and then its sidecar, as a bin does; return its SHA-256 and its ground truth."""
    image, boxes, class_ids = draw_scene(np.random.default_rng([11, number]), [5, 12, 7], 320, taxonomy)
    jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    truth = [
        {"label": taxonomy.name_of[int(c)], "box": b}
        for b, c in zip(boxes.tolist(), class_ids.tolist(), strict=True)
    ]
    sha = hashlib.sha256(jpeg).hexdigest()
    sidecar = {
        "bin_id": "bin07",
        "captured_at": datetime(2026, 3, 1, 12, number, tzinfo=UTC).isoformat(),
        "release": None,
        "detections": [box | {"score": 0.4} for box in truth],
        "reason": "low confidence",
        "burst": f"b{number}",
    }
    deployment.store.put(f"inbox/bin07/2026-03-01/{sha}.jpg", jpeg, "image/jpeg")
    deployment.store.put(
        f"inbox/bin07/2026-03-01/{sha}.json", json.dumps(sidecar).encode(), "application/json"
    )
    return sha, truth


def tasks(deployment: Deployment, taxonomy: Taxonomy) -> list[Any]:
    """All tasks of the project."""
    project = find_project(deployment)
    return list(deployment.label_studio.tasks.list(project=project, fields="all"))


def find_project(deployment: Deployment) -> int:
    """The project's id."""
    (found,) = [
        p
        for p in deployment.label_studio.projects.list()
        if p.title == deployment.settings.label_studio_project
    ]
    return int(found.id)


def test_uploads_become_a_dataset_version_by_events_alone(deployment: Deployment, taxonomy: Taxonomy) -> None:
    """Uploads to the inbox and annotations in Label Studio lead to a new dataset version."""
    truths = dict(upload(deployment, taxonomy, number) for number in range(FRAMES))
    deployment.wait_for(
        "the frames have tasks", lambda: deployment.ledger.count_by_state().get("tasked", 0) == FRAMES, 300
    )
    assert not list(deployment.store.list("inbox/"))
    found = tasks(deployment, taxonomy)
    assert {task.data["sha256"] for task in found} == set(truths)
    assert all(task.predictions for task in found), "every task is pre-labelled"
    for task in found:
        (prelabel,) = deployment.label_studio.predictions.list(task=task.id)
        result = list(prelabel.result or [])
        deployment.label_studio.annotations.create(id=task.id, result=result, lead_time=3.0)
    version = "data-00002"  # the sample data is the first
    origin = deployment.root
    deployment.wait_for(
        "the dataset has grown",
        lambda: version in subprocess.check_output(["git", "tag"], cwd=origin, text=True).split(),
        240,
    )
    deployment.wait_for(
        "the ledger knows it", lambda: deployment.ledger.count_untrained_frames() == FRAMES, 300
    )
    log = Log(Clone(deployment.settings.clone).path / "data", taxonomy)
    for sha, truth in truths.items():
        labels = log.labels(log.row_of[sha])
        assert labels is not None
        assert sorted(taxonomy.name_of[c] for c in labels.class_ids.tolist()) == sorted(
            box["label"] for box in truth
        )
        wanted = np.array(sorted(box["box"] for box in truth))
        assert np.array(sorted(labels.boxes.tolist())) == pytest.approx(wanted, abs=0.01)
    assert [turn.version for turn in deployment.ledger.finished_turns()] == [version]
    assert any(stored.key.startswith("dvc/") for stored in deployment.store.list("dvc/")), (
        "the version can be pulled from the store"
    )


def test_setting_up_again_changes_nothing(deployment: Deployment) -> None:
    """The project, the dataset version and the frames stay; the clone has what was committed meanwhile.

    A turn that died as its files were written is no obstacle: they are discarded, and the turn is done again.
    """
    died = deployment.settings.clone / "data" / "labels" / "00099-bins-0123456789ab.parquet"
    died.write_bytes(b"half a turn")
    (deployment.root / "NOTE").write_text("a change of the team's own")
    for command in (
        ["add", "NOTE"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a note"],
    ):
        subprocess.run(["git", *command], cwd=deployment.root, check=True)
    before = (
        find_project(deployment),
        deployment.ledger.count_by_state(),
        Clone(deployment.settings.clone).dataset_version(),
    )
    deployment.trashnet("setup")
    assert (
        find_project(deployment),
        deployment.ledger.count_by_state(),
        Clone(deployment.settings.clone).dataset_version(),
    ) == before
    assert (deployment.settings.clone / "NOTE").is_file()
    assert not died.exists()


def test_the_sweep_ingests_a_frame_that_no_event_announced(
    deployment: Deployment, taxonomy: Taxonomy
) -> None:
    """The event gateway is stopped when a frame arrives; the next sweep starts its ingestion."""
    before = deployment.ledger.count_by_state().get("tasked", 0)
    deployment.gateway.stop()
    upload(deployment, taxonomy, 50)
    deployment.run_flow("sweep/sweep")
    deployment.wait_for(
        "the frame has its task",
        lambda: deployment.ledger.count_by_state().get("tasked", 0) == before + 1,
        300,
    )
