"""Each test has its own project on the session's real Label Studio and S3 server."""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from labeling import (
    Client,
    CollectedLabels,
    LabelingParams,
    Project,
    collect_labels,
    connect,
    ensure_project,
    request_labels,
)
from synthetic import draw_scene
from tests.conftest import REPOSITORY
from tests.servers import LabelStudioServer, S3Server
from trashnet.boxes import Box
from trashnet.ledger import FrameRow, Ledger, open_ledger
from trashnet.params import load_params
from trashnet.settings import Settings
from trashnet.store import ObjectStore, open_store
from trashnet.taxonomy import Taxonomy

SIZE = 640
ITEMS = (5, 12, 6, 20, 41)
NO_WASTE_TAG = {
    "id": "n",
    "type": "choices",
    "from_name": "nothing",
    "to_name": "image",
    "value": {"choices": ["No waste here"]},
}


def region(
    x: float = 10, y: float = 10, w: float = 20, h: float = 20, label: str = "Battery", **changes: Any
) -> dict[str, Any]:
    """A region with a box in percent (10 % are 64 pixels); ``changes`` replace fields of the region."""
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [label]}
    image_fields = {
        "from_name": "boxes",
        "to_name": "image",
        "original_width": SIZE,
        "original_height": SIZE,
        "image_rotation": 0,
    }
    return {"id": secrets.token_hex(5), "type": "rectanglelabels", "value": value, **image_fields, **changes}


@dataclass
class Desk:
    """One deployment: its settings, project, ledger and store, and the functions of ``labeling`` on them."""

    client: Client
    settings: Settings
    taxonomy: Taxonomy
    params: LabelingParams
    ledger: Ledger
    store: ObjectStore
    project: Project
    frames: list[str] = field(default_factory=list)

    def draw(self, count: int, **columns: Any) -> list[str]:
        """Put drawn frames into the store and, as accepted, into the ledger; return their SHA-256s."""
        new = []
        for _ in range(count):
            rng = np.random.default_rng([33, len(self.frames)])
            image, boxes, class_ids = draw_scene(rng, ITEMS, SIZE, self.taxonomy)
            jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
            sha = hashlib.sha256(jpeg).hexdigest()
            self.store.put(f"frames/{sha}.jpg", jpeg, "image/jpeg")
            detections = tuple(
                Box(self.taxonomy.name_of[int(c)], *box, 0.9 - 0.1 * i)
                for i, (box, c) in enumerate(zip(boxes.tolist(), class_ids, strict=True))
            )
            self.enter(sha, detections=detections, explanation="rare class: Paper cup 0.31", **columns)
            new.append(sha)
        return new

    def enter(self, sha: str, **columns: Any) -> None:
        """Put a frame into the ledger as accepted, with or without a picture."""
        values: dict[str, Any] = {
            "bin_id": "bin07",
            "release": "r1",
            "captured_at": datetime(2026, 11, 2, 9, 30, tzinfo=UTC),
        }
        values |= {"width": SIZE, "height": SIZE, "key": f"frames/{sha}.jpg", "score": 0.5} | columns
        self.ledger.add(
            FrameRow(
                sha256=sha, uploaded_sha256=sha, state="accepted", inbox_key=f"inbox/{sha}.json", **values
            )
        )
        self.frames.append(sha)

    def ask(self, shas: Sequence[str], params: LabelingParams | None = None) -> int:
        """Request labels."""
        return request_labels(self.client, self.project, self.ledger, self.store, shas, params or self.params)

    def collect(
        self, params: LabelingParams | None = None, now: Callable[[], datetime] | None = None
    ) -> CollectedLabels:
        """Collect answers."""
        return collect_labels(
            self.client, self.project, self.ledger, self.taxonomy, params or self.params, now
        )

    def task(self, sha: str) -> int:
        """The frame's task according to the ledger."""
        row = self.ledger.frame(sha)
        assert row is not None
        assert row.task_id is not None
        return row.task_id

    def state(self, sha: str) -> str:
        """The frame's state."""
        row = self.ledger.frame(sha)
        assert row is not None
        return row.state

    def answer(self, sha: str, *result: dict[str, Any], person: int | None = None, **columns: Any) -> int:
        """Annotate the frame's task and return the annotation's id."""
        annotator = {} if person is None else {"completed_by": person}
        made = self.client.annotations.create(self.task(sha), result=list(result), **annotator, **columns)
        assert made.id is not None
        return made.id

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks of the project, oldest first, with annotations and predictions."""
        return self.client.list_tasks(
            self.project.id, {"ordering": ["tasks:id"]}, page_size=1000, with_annotations=True
        )


@pytest.fixture(scope="session")
def params() -> LabelingParams:
    """The shipped parameters, but every frame needs one annotation and has pre-labels; tests change that."""
    return load_params("labeling", LabelingParams, REPOSITORY / "params.yaml").model_copy(
        update={"double_share": 0.0, "blind_share": 0.0}
    )


@pytest.fixture
def settings(
    s3_server: S3Server, label_studio_server: LabelStudioServer, fresh_bucket: str, tmp_path: Path
) -> Settings:
    """A deployment with its own bucket, project title and ledger."""
    return Settings(
        _env_file=None,
        s3_endpoint=s3_server.url,
        s3_access_key=s3_server.access_key,
        s3_secret_key=s3_server.secret_key,
        s3_bucket=fresh_bucket,
        ledger_url=f"sqlite:///{tmp_path}/ledger.sqlite",
        label_studio_url=label_studio_server.url,
        label_studio_token=label_studio_server.token,
        label_studio_project=f"Test {fresh_bucket}",
        gateway_url="http://127.0.0.1:9",
        gateway_secret="a-secret-of-the-tests",
    )


@pytest.fixture
def client(settings: Settings) -> Client:
    """A client that retries for 3 seconds only, so that an error in a test shows soon."""
    return connect(settings, retry_seconds=3)


@pytest.fixture
def desk(client: Client, settings: Settings, taxonomy: Taxonomy, params: LabelingParams) -> Iterator[Desk]:
    """A new project with nothing in it."""
    ledger = open_ledger(settings.ledger_url)
    project = ensure_project(client, settings, taxonomy, params)
    yield Desk(client, settings, taxonomy, params, ledger, open_store(settings), project)
    ledger.close()


@pytest.fixture
def people(client: Client) -> tuple[int, int, int]:
    """Three users of Label Studio's, by id."""
    known = {user.email: user.id for user in client.users.list()}
    for name in ("ada", "ben", "cleo"):
        if f"{name}@example.org" not in known:
            known[f"{name}@example.org"] = client.users.create(email=f"{name}@example.org", username=name).id
    return known["ada@example.org"], known["ben@example.org"], known["cleo@example.org"]


@pytest.fixture
def set_update_time(label_studio_server: LabelStudioServer) -> Callable[..., None]:
    """Sets the update time of tasks in Label Studio's database, because its API always writes the present."""
    import sqlite3

    def set_time(project: int, tasks: Sequence[int], seconds_ago: float = 0) -> None:
        moment = datetime.now(UTC).timestamp() - seconds_ago
        text = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        with sqlite3.connect(
            label_studio_server.server.log.with_suffix("") / "label_studio.sqlite3", timeout=30
        ) as database:
            placeholders = ",".join("?" * len(tasks))
            changed = database.execute(
                f"UPDATE task SET updated_at = ? WHERE project_id = ? AND id IN ({placeholders})",
                [text, project, *tasks],
            )
            assert changed.rowcount == len(tasks)

    return set_time
