"""Nothing lost, nothing twice, on a frame's whole way: inbox, ledger, tasks, annotations, dataset versions.

What happens in the world is fixed: two days on which bins upload and people answer. Which events arrive, in
which order, and where the process dies is not; the scheduled sweep comes at the end of each moment. Label
Studio, git and DVC are real.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from benchmarks.support.fault_injection import Fuse, FusedLedger, FusedStore, Killed, OnceEach
from benchmarks.support.memory_store import Objects
from dataset import GrowthParams, Log, grow
from dataset.splits.params import SplitParams
from flows.sweep_up import DEPLOYMENTS
from ingest import (
    DecoderPool,
    IngestParams,
    admit_uploads,
    deduplicate,
    drain_inbox,
    receive,
)
from labeling import (
    Client,
    LabelingParams,
    Project,
    collect_labels,
    ensure_project,
    request_labels,
    room_for_tasks,
)
from selection import ScoringModels, SelectionParams, select_frames
from tests.clones import run
from tests.conftest import REPOSITORY
from tests.ingest.uploads import NOON, jpeg, scene, sidecar, upload
from tests.servers import LabelStudioServer, S3Server
from tests.trashnet.ledger.inspection import frames_in_state, history
from trashnet.clone import Clone
from trashnet.ledger import open_ledger
from trashnet.params import load_params
from trashnet.settings import Settings
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.slow

INGEST = IngestParams(threads=1, decoders=1, batch_size=3)
LABELING = load_params("labeling", LabelingParams, REPOSITORY / "params.yaml").model_copy(
    update={"double_share": 0.0, "import_batch_size": 2}
)
SELECTION = load_params("selection", SelectionParams, REPOSITORY / "params.yaml")
GROWTH = load_params("growth", GrowthParams, REPOSITORY / "params.yaml")
SPLIT = load_params("split", SplitParams, REPOSITORY / "params.yaml")
VERBS = ("ingest", "request-labels", "collect-labels", "grow")
MOMENTS = 4
BUCKET = "nothing-lost"  # that tasks point to; nobody opens them here, so the frames are kept in memory
# Columns of a frame that two equal days need not share.
PASSING = {"received_at", "changed_at", "task_id", "turn", "score", "explanation"}
T = TypeVar("T")


@pytest.fixture(autouse=True)
def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock whose holder died is free after a moment instead of a minute."""
    monkeypatch.setattr("trashnet.ledger.locks.LOCK_SECONDS", 1.0)
    monkeypatch.setattr("trashnet.ledger.locks.POLL_SECONDS", 0.05)


class FusedClient(Client):
    """Each request to Label Studio may be the process's last, before it is sent or its response is read."""

    fuse = Fuse()

    def with_retries(self, request: Callable[[], T]) -> T:
        """Request, unless dead."""
        self.fuse.burn()
        response = super().with_retries(request)
        self.fuse.burn()
        return response


class FusedClone(Clone):
    """The process may die before each git or dvc command."""

    fuse = Fuse()

    def run(self, *command: str, on_line: Callable[[str], None] | None = None) -> str:
        """Run, unless dead."""
        self.fuse.burn()
        return super().run(*command, on_line=on_line)


class FusedFrames(FusedStore):
    """Reading is an effect too: growing reads frames while it writes the turn's file."""

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Read, unless dead."""
        self.fuse.burn()
        return super().get(key, limit)


@dataclass
class World:
    """One deployment and its two days."""

    root: Path
    client: FusedClient
    project: Project
    store: FusedFrames
    ledger: FusedLedger
    clone: FusedClone
    taxonomy: Taxonomy
    decoders: DecoderPool

    def light(self, fuse: Fuse) -> None:
        """From now on effects burn this fuse."""
        self.store.fuse = self.ledger.fuse = self.client.fuse = self.clone.fuse = fuse

    def run_flow(self, verb: str, at_least: int) -> None:
        """The verbs that the flow of that name calls; ``at_least`` labelled frames make a dataset turn."""
        if verb == "ingest":
            rounds = drain_inbox(
                lambda before: admit_uploads(self.store, self.ledger, INGEST, before),
                lambda keys: receive(
                    self.store, self.ledger, keys, self.taxonomy, INGEST, decoders=self.decoders
                ),
                lambda: deduplicate(self.store, self.ledger, INGEST),
            )
            for _ in rounds:
                pass
        elif verb == "request-labels":
            if room := room_for_tasks(self.ledger, SELECTION.budget):
                models = ScoringModels(None, None, self.taxonomy)
                sampled = select_frames(self.store, self.ledger, models, {}, SELECTION, 20, room)
                request_labels(self.client, self.project, self.ledger, self.store, sampled, LABELING)
        elif verb == "collect-labels":
            collect_labels(self.client, self.project, self.ledger, self.taxonomy, LABELING)
        else:
            for _ in grow(self.clone, self.store, self.ledger, self.taxonomy, GROWTH, SPLIT, at_least):
                pass

    def sweep(self) -> None:
        """What the schedule does, whatever events came: the sweep starts what is due, at night data grows."""
        self.light(Fuse())
        for verb in VERBS[:-1]:
            if DEPLOYMENTS[f"{verb}/{verb}"](self):  # type: ignore[arg-type]
                self.run_flow(verb, 1)
        self.run_flow("grow", 1)

    def happen(self, moment: int) -> int:
        """What bins and people do; how many labelled frames make a turn then."""
        self.light(Fuse())
        return (self._first_uploads, self._answers, self._second_uploads, self._answers)[moment]()

    def _first_uploads(self) -> int:
        for number in range(4):
            upload(
                self.store, jpeg(scene(number)), sidecar(captured_at=_minute(number), burst=f"b{number // 2}")
            )
        upload(self.store, jpeg(scene(1), quality=60), sidecar(captured_at=_minute(60)))
        upload(self.store, jpeg(scene(9))[:500])
        return 10_000

    def _second_uploads(self) -> int:
        for number in range(4, 6):
            upload(self.store, jpeg(scene(number)), sidecar(captured_at=_minute(number), burst="b9"))
        upload(self.store, jpeg(scene(0)), sidecar("bin02"), bin_id="bin02")
        upload(self.store, jpeg(scene(8)), b"{}")
        return 10_000

    def _answers(self) -> int:
        """Boxes for every task, no waste in the first one, and one answer that must be refused."""
        frames = frames_in_state(self.ledger, "tasked")
        for index, frame in enumerate(frames):
            number = int(frame.sha256[:8], 16)
            value = {
                "x": 10,
                "y": 20,
                "width": 30 + number % 7,
                "height": 40,
                "rotation": 45 if index == len(frames) - 1 else 0,
            }
            label = self.taxonomy.names[number % len(self.taxonomy.names)]
            box = {
                "type": "rectanglelabels",
                "value": value | {"rectanglelabels": [label]},
                "from_name": "boxes",
                "to_name": "image",
            }
            size = {"original_width": frame.width, "original_height": frame.height, "image_rotation": 0}
            nothing = {
                "type": "choices",
                "from_name": "nothing",
                "to_name": "image",
                "value": {"choices": ["No waste here"]},
            }
            self.client.annotations.create(frame.task_id or 0, result=[nothing if index == 0 else box | size])
        return len(frames) - 1

    def ended(self) -> dict[str, Any]:
        """The ledger, the store, the tasks and the dataset, but for times and the servers' numbers."""
        states = ("received", "accepted", "duplicate", "quarantined", "tasked", "labelled", "released")
        rows = {
            row.sha256: {k: v for k, v in asdict(row).items() if k not in PASSING}
            for row in frames_in_state(self.ledger, *states)
        }
        for sha in rows:
            steps = [step[:2] for step in history(self.ledger, sha)]
            assert len(steps) == len(set(steps)), f"a transition of {sha} was made twice: {steps}"
        tasks = self.client.list_tasks(self.project.id, {}, page_size=1000, with_annotations=False)
        log = Log(self.clone.path / "data", self.taxonomy)
        fold = sorted(
            (
                f.sha256,
                f.split,
                f.group,
                f.labels.boxes.tolist(),
                f.labels.class_ids.tolist(),
                f.labels.annotator,
            )
            for f in log.frames(labelled=False)
            if f.labels is not None
        )
        return {
            "rows": rows,
            "answers": {
                sha: [(a.outcome, a.boxes, a.reason) for a in self.ledger.annotations_of(sha)] for sha in rows
            },
            "objects": {found.key: self.store.get(found.key) for found in self.store.list("")},
            "tasks": sorted(task["data"]["sha256"] for task in tasks),
            "turns": [(turn.version, turn.frames, turn.boxes) for turn in self.ledger.finished_turns()],
            "tags": run(self.root / "origin", "git", "tag").split(),
            "frames": len(log.frames(labelled=False)),
            "dataset": hashlib.sha256(json.dumps(fold).encode()).hexdigest(),
        }


def _minute(number: int) -> str:
    return (NOON + timedelta(minutes=number)).isoformat()


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    """Decoding processes for all these worlds."""
    with DecoderPool(INGEST) as running:
        yield running


@pytest.fixture(scope="module")
def make_world(
    begun: Path,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: S3Server,
    label_studio_server: LabelStudioServer,
    taxonomy: Taxonomy,
    decoders: DecoderPool,
) -> Iterator[Callable[[], World]]:
    """Worlds that differ in nothing but their place and their project."""
    made: list[World] = []

    def make() -> World:
        root = tmp_path_factory.mktemp("world") / "here"
        shutil.copytree(begun, root)
        settings_ = Settings(
            _env_file=None,
            s3_endpoint=s3_server.url,
            s3_access_key=s3_server.access_key,
            s3_secret_key=s3_server.secret_key,
            s3_bucket=BUCKET,
            ledger_url=f"sqlite:///{root}/ledger.sqlite",
            label_studio_url=label_studio_server.url,
            label_studio_token=label_studio_server.token,
            label_studio_project=f"World {len(made)} of {BUCKET}",
            gateway_url="http://127.0.0.1:9",
            gateway_secret="a-secret-of-the-tests",
        )
        client = FusedClient(settings_.label_studio_url, settings_.label_studio_token.get_secret_value())
        project = ensure_project(client, settings_, taxonomy, LABELING)
        open_ledger(settings_.ledger_url).close()
        store, ledger = FusedFrames(Objects(), Fuse()), FusedLedger(settings_.ledger_url, Fuse())
        made.append(
            World(root, client, project, store, ledger, FusedClone(root / "clone"), taxonomy, decoders)
        )
        return made[-1]

    yield make
    for world in made:
        world.ledger.close()


@pytest.fixture(scope="module")
def undisturbed(make_world: Callable[[], World]) -> dict[str, Any]:
    """How the two days end if no event arrives and nothing dies: the sweep does it all."""
    world = make_world()
    for moment in range(MOMENTS):
        world.happen(moment)
        world.sweep()
    return world.ended()


def test_the_undisturbed_days_end_as_they_should(undisturbed: dict[str, Any]) -> None:
    """What the other tests compare with: six tasks, a wrong answer each day, two versions."""
    states = sorted(row["state"] for row in undisturbed["rows"].values())
    assert states == ["duplicate"] + 5 * ["labelled"] + 2 * ["quarantined"] + ["tasked"]
    assert len(undisturbed["tasks"]) == len(set(undisturbed["tasks"])) == 6
    assert undisturbed["turns"] == [("data-00001", 3, 2), ("data-00002", 2, 1)]
    assert undisturbed["tags"] == ["data-00001", "data-00002"]
    assert undisturbed["frames"] == 5


def test_every_step_of_the_way_may_die_once(
    make_world: Callable[[], World], undisturbed: dict[str, Any]
) -> None:
    """Wherever the code writes, sends or reads, the process dies the first time: the same end."""
    world, fuse = make_world(), OnceEach()
    for moment in range(MOMENTS):
        world.happen(moment)
        world.light(fuse)
        for verb in VERBS:
            alive = False
            while not alive:
                with suppress(Killed):
                    world.run_flow(verb, 1)
                    alive = True
    assert len(fuse.places) > 40
    world.light(Fuse())
    assert world.ended() == undisturbed


EVENTS = st.lists(st.tuples(st.sampled_from(VERBS), st.none() | st.integers(0, 30)), max_size=6)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
@example(events=[[("grow", None), ("collect-labels", None), ("ingest", None), ("ingest", None)]] * MOMENTS)
@given(events=st.lists(EVENTS, min_size=MOMENTS, max_size=MOMENTS))
def test_events_may_be_dropped_doubled_and_reordered_and_what_they_start_may_die(
    events: list[list[tuple[str, int | None]]], make_world: Callable[[], World], undisturbed: dict[str, Any]
) -> None:
    """After every upload and answer flows run in any order, some are killed; after a sweep: the same end."""
    world = make_world()
    for moment in range(MOMENTS):
        at_least = world.happen(moment)
        for verb, killed in events[moment]:
            world.light(Fuse(killed))
            with suppress(Killed):
                world.run_flow(verb, at_least)
        world.sweep()
    assert world.ended() == undisturbed
