"""Candidates: trained, judged models in the object store, versioned by their contents, each complete once its manifest is there.

``models/<version>/`` holds the files, ``manifest.json`` last; ``models/newest.json`` names the version that
was published last.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dataset import Log
from evaluation import Scorecard
from trashnet.clone import Clone
from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.ledger import Ledger
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

MODELS = "models"
PIPELINE = "dvc.yaml"  # its stages, not what else DVC knows in the repository
NEWEST = f"{MODELS}/newest.json"
MANIFEST = "manifest.json"
SHIPPED = ("efficientdet.onnx", "labels.txt", "ssd_float.tflite", "ssd_int8.tflite")
LARGEST_MANIFEST = 1 << 20  # bytes
CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class PublishedFile(BaseModel):
    """A file of a candidate: its size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str


class Candidate(BaseModel):
    """What a candidate's manifest says: what it is made of, what it was trained on, and its headline numbers per model."""

    model_config = ConfigDict(frozen=True)

    version: str
    published_at: datetime
    dataset: str
    turns: tuple[str, ...]
    commit: str
    files: dict[str, PublishedFile]
    scores: dict[str, dict[str, float | int | None]]


def publish_candidate(
    store: ObjectStore,
    models: Mapping[str, Path],
    papers: Mapping[str, Path],
    *,
    dataset: str,
    turns: tuple[str, ...],
    commit: str,
    scores: Mapping[str, Mapping[str, float | int | None]],
) -> Candidate:
    """Upload a candidate and name it the newest; the same models of the same dataset version are published once.

    ``models`` are what bins and servers run, ``papers`` what people read beside them (no two evaluations take
    the same milliseconds, so they don't count towards the version): local files by their names in the
    candidate. ``dataset`` is the version (a git tag) and ``turns`` the turns of the log that the models were
    trained on. Raises :class:`UserError` if a file is missing; the store then has nothing new.
    """
    contents = {name: _read(path) for name, path in sorted({**models, **papers}.items())}
    listed = {
        name: PublishedFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    told = json.dumps([dataset, {name: listed[name].sha256 for name in models}], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()
    version = f"{dataset.removeprefix('data-')}-{digest[:12]}"
    before = read_candidate(store, version)
    candidate = before or Candidate(
        version=version,
        published_at=datetime.now(UTC),
        dataset=dataset,
        turns=turns,
        commit=commit,
        files=listed,
        scores={model: dict(values) for model, values in scores.items()},
    )
    if before is None:
        for name, data in contents.items():
            store.put(
                f"{MODELS}/{version}/{name}",
                data,
                CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream"),
            )
        store.put(
            f"{MODELS}/{version}/{MANIFEST}",
            candidate.model_dump_json(indent=2).encode(),
            CONTENT_TYPES[".json"],
        )
    store.put(NEWEST, json.dumps({"version": version}).encode(), CONTENT_TYPES[".json"])
    return candidate


def publish_trained(training: Clone, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy) -> Candidate:
    """Publish what was trained in a clone: its outputs to the DVC remote, ``dvc.lock`` under a tag, the candidate to the store.

    Frames that it was trained on become ``released``. Each step may be done again; the last one done makes
    nothing twice. Raises :class:`UserError` if a stage there is not up to date.
    """
    with training.exclusive_lock():  # a retraining that begins meanwhile would change what is being read
        if stale := json.loads(training.dvc("status", "--json", PIPELINE, "data.dvc") or "{}"):
            raise UserError(
                f"{training.path}: not trained to the end; `dvc repro` would still run {', '.join(stale)}. Run retrain first."
            )
        build = training.path / "build"
        cards = {path.stem: Scorecard.load(path) for path in sorted((build / "scorecards").glob("*.json"))}
        papers = {f"scorecards/{name}.json": build / "scorecards" / f"{name}.json" for name in cards}
        papers |= {"report.html": build / "report.html", "edgetpu.json": build / "models" / "edgetpu.json"}
        training.dvc("push", PIPELINE)
        training.commit("Models trained", "dvc.lock", "params.yaml")
        log = Log(training.path / "data", taxonomy)
        candidate = publish_candidate(
            store,
            {path.name: path for path in sorted((build / "models").iterdir()) if path.name in SHIPPED},
            papers,
            dataset=training.dataset_version() or f"data-{log.turns[-1].split('-')[0]}",
            turns=tuple(log.turns),
            commit=training.head(),
            scores={name: card.headline() for name, card in cards.items()},
        )
        training.tag(f"models-{candidate.version}")
        training.git("push", "--quiet", "--tags", "origin")
        ledger.mark_trained(log.turns)
        return candidate


def newest_candidate(store: ObjectStore) -> Candidate | None:
    """The candidate that was published last, ``None`` before the first. Raises :class:`UserError` if its manifest is gone or damaged."""
    try:
        version = json.loads(store.get(NEWEST, LARGEST_MANIFEST))["version"]
    except NoSuchObject:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{store}: {NEWEST} is damaged; publishing a candidate writes it anew") from None
    candidate = read_candidate(store, version)
    if candidate is None:
        raise UserError(
            f"{store}: {NEWEST} names {version}, which has no manifest; publishing a candidate writes it anew"
        )
    return candidate


def read_candidate(store: ObjectStore, version: str) -> Candidate | None:
    """A candidate by its version, ``None`` if it was never published whole."""
    key = f"{MODELS}/{version}/{MANIFEST}"
    try:
        return Candidate.model_validate_json(store.get(key, LARGEST_MANIFEST))
    except NoSuchObject:
        return None
    except ValidationError as error:
        raise UserError(f"{store}: {key} is not a manifest: {error}") from None


def fetch_model(store: ObjectStore, candidate: Candidate, name: str, folder: Path) -> Path:
    """The local path of a candidate's file, downloaded once into ``folder`` and checked against its SHA-256.

    Raises :class:`UserError` if the candidate has no such file, or the store holds other bytes than the
    manifest says.
    """
    if name not in candidate.files:
        raise UserError(f"candidate {candidate.version} has no {name}; it has {', '.join(candidate.files)}")
    wanted = candidate.files[name]
    path = folder / candidate.version / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted.sha256:
        data = store.get(f"{MODELS}/{candidate.version}/{name}", limit=wanted.bytes)
        if (found := hashlib.sha256(data).hexdigest()) != wanted.sha256:
            raise UserError(
                f"{store}: {name} of candidate {candidate.version} has SHA-256 {found}, its manifest says {wanted.sha256}"
            )
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `dvc repro` makes it") from None
