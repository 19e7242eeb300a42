"""Growing on a real git clone, DVC remote and S3 server: one turn per plan, whatever dies on the way."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.support.fault_injection import Killed
from dataset import GrowthParams, Log
from dataset import growth as growth_module
from dataset.growth import GrownTurn, grow, grow_due, grow_turn
from dataset.splits.params import SplitParams
from synthetic import draw_scene
from tests.clones import run
from tests.servers import S3Server
from training import RetrainingParams, retrain_due
from trashnet.boxes import Box
from trashnet.clone import BRANCH, Clone, ensure_clone
from trashnet.ledger import AnnotationRow, FrameRow, Ledger, open_ledger
from trashnet.store import ObjectStore, StoreDown
from trashnet.taxonomy import Taxonomy, WasteClass

PARAMS = GrowthParams(min_frames=1, max_frames=1000)
SPLIT = SplitParams(group_hash_distance=6, val=0.15, test=0.15)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Deployment:
    """One deployment's clone, store and ledger, with labelled frames waiting."""

    clone: Clone
    store: ObjectStore
    ledger: Ledger
    origin: Path
    taxonomy: Taxonomy

    def grow(self) -> GrownTurn | None:
        """One run of what is tested."""
        return grow_turn(self.clone, self.store, self.ledger, self.taxonomy, PARAMS, SPLIT)

    def label(self, numbers: range) -> None:
        """Put drawn frames into the store and the ledger, each with one answered task."""
        for number in numbers:
            image, boxes, class_ids = draw_scene(
                np.random.default_rng([5, number]), [5, 12], 96, self.taxonomy
            )
            jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
            sha = hashlib.sha256(jpeg).hexdigest()
            self.store.put(f"frames/{sha}.jpg", jpeg)
            values: dict[str, Any] = {
                "key": f"frames/{sha}.jpg",
                "width": 96,
                "height": 96,
                "captured_at": NOON,
                "bin_id": "bin1",
            }
            self.ledger.add(
                FrameRow(
                    sha256=sha,
                    uploaded_sha256=sha,
                    state="tasked",
                    inbox_key="",
                    burst=f"b{number}",
                    **values,
                )
            )
            labels = tuple(
                Box(self.taxonomy.name_of[int(c)], *b)
                for b, c in zip(boxes.tolist(), class_ids.tolist(), strict=True)
            )
            annotation = AnnotationRow(
                annotation_id=number,
                task_id=number,
                sha256=sha,
                annotator="ann",
                labelled_at=NOON,
                outcome="boxes",
                boxes=labels,
            )
            assert self.ledger.record_annotations(sha, [annotation], finished=True).labelled

    def contents(self) -> dict[str, Any]:
        """What growing has made: the dataset's fold, its turns, versions at the origin, the ledger's view."""
        log = Log(self.clone.path / "data", self.taxonomy)
        frames = {
            f.sha256: (f.split, f.group, None if f.labels is None else f.labels.boxes.tolist())
            for f in log.frames(labelled=False)
        }
        tags = run(self.origin, "git", "tag").split()
        turns = [(turn.name, turn.version, turn.frames, turn.boxes) for turn in self.ledger.finished_turns()]
        return {
            "frames": frames,
            "turns": log.turns,
            "tags": tags,
            "ledger": turns,
            "committed": run(self.origin, "git", "show", f"{BRANCH}:data.dvc"),
            "waiting": len(self.ledger.labels_to_grow()),
            "untrained": self.ledger.count_untrained_frames(),
        }


@pytest.fixture
def make_deployment(
    begun: Path, tmp_path: Path, s3_server: S3Server, taxonomy: Taxonomy
) -> Iterator[Callable[[str], Deployment]]:
    """Deployments that differ in nothing but their name."""
    made: list[Deployment] = []

    def make(name: str) -> Deployment:
        root = tmp_path / name
        shutil.copytree(begun, root)
        bucket = f"grow-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"
        store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, bucket, "us-east-1")
        store.ensure_bucket()
        made.append(
            Deployment(
                Clone(root / "clone"),
                store,
                open_ledger(f"sqlite:///{root}/ledger.sqlite"),
                root / "origin",
                taxonomy,
            )
        )
        return made[-1]

    yield make
    for deployment in made:
        deployment.ledger.close()


def test_collected_labels_become_one_version_that_can_be_pulled(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """Frames, boxes and annotator are in the log; whoever clones the origin pulls the same data."""
    deployment = make_deployment("one")
    deployment.label(range(4))
    grown = deployment.grow()
    assert grown is not None
    assert (grown.version, grown.frames) == ("data-00001", 4)
    assert grown.commit == run(deployment.origin, "git", "rev-parse", "data-00001").strip()
    made = deployment.contents()
    assert made["ledger"] == [(grown.turn, "data-00001", 4, grown.boxes)]
    assert (made["waiting"], made["untrained"], made["tags"]) == (0, 4, ["data-00001"])
    stranger = deployment.origin.parent / "stranger"
    run(stranger.parent, "git", "clone", "--quiet", "--branch", "data-00001", deployment.origin, stranger)
    run(stranger, "dvc", "pull", "--quiet")
    log = Log(stranger / "data", deployment.taxonomy)
    assert {frame.sha256 for frame in log.frames()} == set(made["frames"])
    assert all(frame.labels is not None and frame.labels.annotator == "ann" for frame in log.frames())


def test_growing_again_without_new_answers_changes_nothing(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """The second run finds nothing to do."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    deployment.grow()
    before, head = deployment.contents(), deployment.clone.head()
    assert deployment.grow() is None
    assert (deployment.contents(), deployment.clone.head()) == (before, head)


def test_a_corrected_answer_is_a_turn_of_labels_alone(make_deployment: Callable[[str], Deployment]) -> None:
    """The frame's bytes are not written twice; its newest labels win."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    first = deployment.grow()
    (annotation, *_) = deployment.ledger.annotations_of(next(iter(deployment.contents()["frames"])))
    corrected = AnnotationRow(
        annotation_id=annotation.annotation_id, task_id=annotation.task_id, sha256=annotation.sha256,
        annotator="bob",
        labelled_at=NOON + timedelta(hours=1), outcome="nothing", boxes=[],
    )  # fmt: skip
    deployment.ledger.record_annotations(corrected.sha256, [corrected], finished=False)
    second = deployment.grow()
    assert first is not None
    assert second is not None
    assert second.version == "data-00002"
    assert deployment.contents()["frames"][annotation.sha256][2] == []
    assert len(deployment.contents()["frames"]) == 2


def effects(monkeypatch: pytest.MonkeyPatch, kill_before: int | None) -> list[str]:
    """Write down everything that growing does to the world, and die just before one of these steps."""
    done: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            words = " ".join(str(a) for a in args[1:] if isinstance(a, str) and not a.startswith("/"))
            if name != "run" or not any(asking in words for asking in ("--list", "rev-", "diff", " remote")):
                done.append(f"{name} {words}")
                if len(done) - 1 == kill_before:
                    raise Killed(done[-1])
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(Clone, "run", watched("run", Clone.run))
    monkeypatch.setattr(growth_module, "append_to", watched("append", growth_module.append_to))
    monkeypatch.setattr(Ledger, "plan_turn", watched("plan", Ledger.plan_turn))
    monkeypatch.setattr(Ledger, "finish_turn", watched("finish", Ledger.finish_turn))
    return done


@pytest.mark.slow
def test_a_death_before_any_step_ends_in_the_same_dataset(
    make_deployment: Callable[[str], Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each effect and run again: the same frames, boxes, turn, tag and ledger."""
    undisturbed = make_deployment("undisturbed")
    undisturbed.label(range(3))
    with monkeypatch.context() as patch:
        steps = effects(patch, None)
        undisturbed.grow()
    wanted = undisturbed.contents()
    assert len(steps) >= 10
    for number, step in enumerate(steps):
        deployment = make_deployment(f"killed{number}")
        deployment.label(range(3))
        with monkeypatch.context() as patch:
            effects(patch, number)
            with pytest.raises(Killed):
                deployment.grow()
        deployment.grow()
        assert deployment.contents() == wanted, f"killed before: {step}"


def test_a_clone_that_lost_the_race_does_its_turn_again_on_top(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """Another clone pushed first: the turn that was only committed here goes on top, and neither is lost."""
    deployment = make_deployment("one")
    clone = ensure_clone(deployment.origin, deployment.origin.parent / "other")
    other = Deployment(
        clone, deployment.store, open_ledger("sqlite://"), deployment.origin, deployment.taxonomy
    )
    other.clone.dvc("pull", "--quiet")
    deployment.label(range(2))
    other.label(range(5, 7))
    real_push = deployment.clone.push
    deployment.clone.push = lambda: (_ for _ in ()).throw(Killed())  # type: ignore[method-assign]
    with pytest.raises(Killed):
        deployment.grow()
    other.grow()
    deployment.clone.push = real_push  # type: ignore[method-assign]
    deployment.clone.dvc("fetch", "--quiet")
    grown = deployment.grow()
    assert grown is not None
    assert grown.version == "data-00002"
    assert len(deployment.contents()["frames"]) == 4


def test_a_frame_whose_bytes_changed_in_the_store_is_set_aside(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """The name is a checksum: a frame of other bytes grows when its own are back, and the rest before."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    (entry, *_) = deployment.store.list("frames/")
    good = deployment.store.get(entry.key)
    deployment.store.put(entry.key, b"other bytes")
    grown = deployment.grow()
    assert grown is not None
    assert grown.frames == 1
    (aside,) = deployment.ledger.frames_set_aside(9)
    assert f"{entry.key} holds other bytes" in aside.reason
    deployment.store.put(entry.key, good)
    healed = deployment.grow()
    assert healed is not None
    assert healed.frames == 1


def test_a_frame_without_its_object_is_set_aside_and_the_others_grow(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """It is shown with its reason, counts no more, and grows at a later turn once the object is back."""
    deployment = make_deployment("one")
    deployment.label(range(3))
    (entry, *_) = deployment.store.list("frames/")
    lost, good = entry.key.removeprefix("frames/").removesuffix(".jpg"), deployment.store.get(entry.key)
    deployment.store.remove(entry.key)
    grown = deployment.grow()
    assert grown is not None
    assert (grown.frames, grown.set_aside) == (2, 1)
    assert deployment.contents()["ledger"] == [(grown.turn, "data-00001", 2, grown.boxes)]
    (aside,) = deployment.ledger.frames_set_aside(9)
    assert aside.sha256 == lost
    assert entry.key in aside.reason
    assert (deployment.ledger.count_set_aside(), deployment.ledger.count_labels_to_grow()) == (1, 0)
    assert deployment.grow() is None
    deployment.store.put(entry.key, good)
    (healed,) = grow(
        deployment.clone, deployment.store, deployment.ledger, deployment.taxonomy, PARAMS, SPLIT, at_least=1
    )
    assert (healed.version, healed.frames) == ("data-00002", 1)
    assert deployment.ledger.count_set_aside() == 0
    assert len(deployment.contents()["frames"]) == 3


def test_a_frame_whose_class_left_the_taxonomy_is_set_aside_until_it_is_back(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """The others grow; the reason names the class."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    sha = deployment.ledger.labels_to_grow()[0].sha256
    (row,) = deployment.ledger.annotations_of(sha)
    unicorn = replace(row, boxes=(Box("Unicorn", 1, 2, 30, 40),), labelled_at=NOON + timedelta(hours=1))
    deployment.ledger.record_annotations(sha, [unicorn], finished=False)
    grown = deployment.grow()
    assert grown is not None
    assert grown.frames == 1
    (aside,) = deployment.ledger.frames_set_aside(9)
    assert aside.sha256 == sha
    assert "Unicorn" in aside.reason
    known = deployment.taxonomy
    number = len(known.classes) + 1
    added = WasteClass(number, "Unicorn", "Toy", next(iter(known.streams)))
    deployment.taxonomy = replace(known, classes=(*known.classes, added))
    healed = deployment.grow()
    assert healed is not None
    assert healed.frames == 1
    assert deployment.ledger.count_set_aside() == 0


def test_a_class_that_no_box_has_may_leave_the_taxonomy(make_deployment: Callable[[str], Deployment]) -> None:
    """Frames labelled with it meanwhile are set aside; what the log holds stays readable."""
    deployment = make_deployment("one")
    full = deployment.taxonomy
    number = len(full.classes) + 1
    added = WasteClass(number, "Unicorn", "Toy", next(iter(full.streams)))
    deployment.taxonomy = replace(full, classes=(*full.classes, added))
    deployment.label(range(2))
    assert deployment.grow() is not None
    deployment.label(range(2, 4))
    sha = deployment.ledger.labels_to_grow()[0].sha256
    (row,) = deployment.ledger.annotations_of(sha)
    unicorn = replace(row, boxes=(Box("Unicorn", 1, 2, 30, 40),), labelled_at=NOON + timedelta(hours=1))
    deployment.ledger.record_annotations(sha, [unicorn], finished=False)
    deployment.taxonomy = full
    grown = deployment.grow()
    assert grown is not None
    assert (grown.frames, grown.set_aside) == (1, 1)


def test_a_turn_of_which_nothing_can_grow_is_no_turn(make_deployment: Callable[[str], Deployment]) -> None:
    """Night after night; a store that does not answer sets nothing aside."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    with pytest.raises(StoreDown):
        grow_turn(
            deployment.clone,
            ObjectStore("http://127.0.0.1:9", "key", "secret", "bucket", "us-east-1"),
            deployment.ledger,
            deployment.taxonomy,
            PARAMS,
            SPLIT,
        )
    assert deployment.ledger.count_set_aside() == 0
    for entry in list(deployment.store.list("frames/")):
        deployment.store.remove(entry.key)
    assert deployment.grow() is None
    assert deployment.grow() is None
    assert deployment.ledger.count_set_aside() == 2
    assert deployment.ledger.finished_turns() == []


def deleted(deployment: Deployment, sha: str) -> None:
    """A reviewer deletes the frame's annotations, and they are collected as such."""
    rows = [replace(row, outcome="deleted", boxes=()) for row in deployment.ledger.annotations_of(sha)]
    deployment.ledger.record_annotations(sha, rows, finished=False)


def test_a_deleted_annotation_takes_its_frame_out_of_training(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """Also after its release: the label leaves the dataset, the models are due, the frame is asked again."""
    deployment = make_deployment("one")
    deployment.label(range(3))
    first = deployment.grow()
    assert first is not None
    sha = next(iter(deployment.contents()["frames"]))
    deployment.ledger.mark_trained([first.turn])
    assert not retrain_due(deployment.ledger, RetrainingParams(min_new_frames=1))
    deleted(deployment, sha)
    second = deployment.grow()
    assert second is not None
    assert (second.version, second.frames, second.boxes) == ("data-00002", 1, 0)
    log = Log(deployment.clone.path / "data", deployment.taxonomy)
    assert len(log.frames(labelled=False)) == 3
    assert sha not in {frame.sha256 for frame in log.frames()}
    assert retrain_due(deployment.ledger, RetrainingParams(min_new_frames=1))
    row = deployment.ledger.frame(sha)
    assert row is not None
    assert row.state == "tasked"
    deployment.ledger.mark_trained([first.turn, second.turn])
    assert not retrain_due(deployment.ledger, RetrainingParams(min_new_frames=1))
    assert deployment.grow() is None


def test_a_correction_after_the_release_reaches_the_models(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """It grows, and the models are due, until a candidate was trained on the turn that holds it."""
    deployment = make_deployment("one")
    deployment.label(range(2))
    first = deployment.grow()
    assert first is not None
    deployment.ledger.mark_trained([first.turn])
    (annotation,) = deployment.ledger.annotations_of(next(iter(deployment.contents()["frames"])))
    corrected = replace(annotation, outcome="nothing", boxes=(), labelled_at=NOON + timedelta(hours=1))
    deployment.ledger.record_annotations(corrected.sha256, [corrected], finished=False)
    assert grow_due(deployment.ledger, PARAMS)
    second = deployment.grow()
    assert second is not None
    assert deployment.ledger.count_untrained_frames() == 1
    assert retrain_due(deployment.ledger, RetrainingParams(min_new_frames=1))
    deployment.ledger.mark_trained([first.turn])  # a training that had begun before
    assert deployment.ledger.count_untrained_frames() == 1
    deployment.ledger.mark_trained([first.turn, second.turn])
    assert deployment.ledger.count_untrained_frames() == 0


def test_when_the_newest_annotation_is_deleted_the_one_before_counts_again(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """Two people annotated; the reviewer deletes the second's."""
    deployment = make_deployment("one")
    deployment.label(range(1))
    (sha,) = (label.sha256 for label in deployment.ledger.labels_to_grow())
    (first,) = deployment.ledger.annotations_of(sha)
    second = replace(
        first,
        annotation_id=90,
        annotator="bob",
        outcome="nothing",
        boxes=(),
        labelled_at=NOON + timedelta(hours=1),
    )
    deployment.ledger.record_annotations(sha, [first, second], finished=False)
    deployment.grow()
    assert deployment.contents()["frames"][sha][2] == []
    deployment.ledger.record_annotations(sha, [first, replace(second, outcome="deleted")], finished=False)
    deployment.grow()
    assert deployment.contents()["frames"][sha][2] == [list(box.xywh) for box in first.boxes]


def test_an_annotator_with_another_address_blocks_nothing(
    make_deployment: Callable[[str], Deployment],
) -> None:
    """The same label is not grown again, and a label that is changed and changed back is planned anew."""
    deployment = make_deployment("one")
    deployment.label(range(1))
    (sha,) = (label.sha256 for label in deployment.ledger.labels_to_grow())
    deployment.grow()
    (row,) = deployment.ledger.annotations_of(sha)
    moved = replace(row, annotator="ann@elsewhere.org")
    deployment.ledger.record_annotations(sha, [moved], finished=False)
    assert deployment.ledger.annotations_of(sha) == [moved]
    assert deployment.grow() is None
    changed = replace(moved, outcome="nothing", boxes=())
    for version, again in (("data-00002", changed), ("data-00003", moved)):
        deployment.ledger.record_annotations(sha, [again], finished=False)
        grown = deployment.grow()
        assert grown is not None
        assert grown.version == version
