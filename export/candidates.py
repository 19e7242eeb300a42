"""Candidates: trained, judged models in the object store, versioned by their contents.

``models/<version>/`` holds the files; its ``manifest.json`` is written last, so a candidate that has one is
complete. ``models/newest.json`` names the version that was published last.
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
from trashnet.models import EDGETPU_REPORT_FILE, SHIPPED_FILES
from trashnet.store import NoSuchObject, ObjectStore
from trashnet.taxonomy import Taxonomy

PIPELINE_FILE = "dvc.yaml"  # names the stages to dvc, which tracks other files of the repository too
PREFIX = "models"
NEWEST_KEY = f"{PREFIX}/newest.json"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class CandidateFile(BaseModel):
    """A file of a candidate: its size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str


class Candidate(BaseModel):
    """The manifest of a candidate.

    It lists the files, the data that the models were trained on, and the headline numbers of each model.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    published_at: datetime
    dataset: str
    turns: tuple[str, ...]
    commit: str
    files: dict[str, CandidateFile]
    scores: dict[str, dict[str, float | int | None]]


def publish_candidate(
    store: ObjectStore,
    models: Mapping[str, Path],
    attachments: Mapping[str, Path],
    *,
    dataset: str,
    turns: tuple[str, ...],
    commit: str,
    scores: Mapping[str, Mapping[str, float | int | None]],
) -> Candidate:
    """Upload a candidate and make it the newest.

    The same models of the same dataset version are published once.

    Args:
        store: The object store.
        models: What bins and servers run: local files by their names in the candidate.
        attachments: What people read beside them, likewise. They don't count towards the version: no two
            evaluations measure the same milliseconds.
        dataset: The version (a git tag) of the dataset that the models were trained on.
        turns: The turns of the log that the models were trained on.
        commit: The git commit that they were trained at.
        scores: Headline numbers by model.

    Raises:
        UserError: A file is missing; then nothing was uploaded.
    """
    contents = {name: _read(path) for name, path in sorted({**models, **attachments}.items())}
    files = {
        name: CandidateFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    version = _version(dataset, {name: files[name].sha256 for name in models})
    candidate = load_candidate(store, version)
    if candidate is None:
        candidate = Candidate(
            version=version,
            published_at=datetime.now(UTC),
            dataset=dataset,
            turns=turns,
            commit=commit,
            files=files,
            scores={model: dict(values) for model, values in scores.items()},
        )
        for name, data in contents.items():
            content_type = CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
            store.put(_key(version, name), data, content_type)
        manifest = candidate.model_dump_json(indent=2).encode()
        store.put(_key(version, MANIFEST_NAME), manifest, CONTENT_TYPES[".json"])
    store.put(NEWEST_KEY, json.dumps({"version": version}).encode(), CONTENT_TYPES[".json"])
    return candidate


def publish_trained_models(
    training: Clone, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy
) -> Candidate:
    """Publish the models that were trained in a clone.

    Pushes the outputs to the DVC remote, tags ``dvc.lock`` and uploads the candidate to the store. The frames
    that the models were trained on become ``released``. Each step may be repeated: a call after a crash, or
    after success, makes nothing twice.

    Raises:
        UserError: A stage in the clone is not up to date.
    """
    with training.exclusive_lock():  # a retraining that begins meanwhile would change what is being read
        if stale := json.loads(training.dvc("status", "--json", PIPELINE_FILE, "data.dvc") or "{}"):
            raise UserError(
                f"{training.path}: not trained to the end; `dvc repro` would still run {', '.join(stale)}. "
                "Run retrain first."
            )
        build = training.path / "build"
        scorecards = sorted((build / "scorecards").glob("*.json"))
        scores = {path.stem: Scorecard.load(path).headline() for path in scorecards}
        attachments = {f"scorecards/{path.name}": path for path in scorecards}
        attachments["report.html"] = build / "report.html"
        attachments[EDGETPU_REPORT_FILE] = build / "models" / EDGETPU_REPORT_FILE
        training.dvc("push", PIPELINE_FILE)
        training.commit("Models trained", "dvc.lock", "params.yaml")
        log = Log(training.path / "data", taxonomy)
        candidate = publish_candidate(
            store,
            {path.name: path for path in sorted((build / "models").iterdir()) if path.name in SHIPPED_FILES},
            attachments,
            dataset=training.dataset_version() or f"data-{log.turns[-1].split('-')[0]}",
            turns=tuple(log.turns),
            commit=training.head(),
            scores=scores,
        )
        training.tag(f"models-{candidate.version}")
        training.git("push", "--quiet", "--tags", "origin")
        ledger.mark_trained(log.turns)
        return candidate


def load_newest_candidate(store: ObjectStore) -> Candidate | None:
    """The candidate that was published last, ``None`` before the first.

    Raises :class:`UserError` if its manifest is missing or damaged.
    """
    try:
        version = json.loads(store.get(NEWEST_KEY, MAX_MANIFEST_BYTES))["version"]
    except NoSuchObject:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{store}: {NEWEST_KEY} is damaged; publishing a candidate writes it anew") from None
    candidate = load_candidate(store, version)
    if candidate is None:
        raise UserError(
            f"{store}: {NEWEST_KEY} names {version}, which has no manifest; "
            "publishing a candidate writes it anew"
        )
    return candidate


def load_candidate(store: ObjectStore, version: str) -> Candidate | None:
    """A candidate by its version, ``None`` if it was never published completely.

    Raises :class:`UserError` for a damaged manifest.
    """
    key = _key(version, MANIFEST_NAME)
    try:
        return Candidate.model_validate_json(store.get(key, MAX_MANIFEST_BYTES))
    except NoSuchObject:
        return None
    except ValidationError as error:
        raise UserError(f"{store}: {key} is not a manifest: {error}") from None


def download_model(store: ObjectStore, candidate: Candidate, name: str, folder: Path) -> Path:
    """Download a file of a candidate into ``folder``, once, and check it against its SHA-256; its local path.

    Raises:
        UserError: The candidate has no such file, or the store holds other bytes than the manifest says.
    """
    if name not in candidate.files:
        raise UserError(f"candidate {candidate.version} has no {name}; it has {', '.join(candidate.files)}")
    expected = candidate.files[name]
    path = folder / candidate.version / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected.sha256:
        data = store.get(_key(candidate.version, name), limit=expected.bytes)
        if (sha256 := hashlib.sha256(data).hexdigest()) != expected.sha256:
            raise UserError(
                f"{store}: {name} of candidate {candidate.version} has SHA-256 {sha256}, "
                f"its manifest says {expected.sha256}"
            )
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    return path


def _version(dataset: str, sha256_of: Mapping[str, str]) -> str:
    """``00002-0123456789ab``: the dataset's number and a digest of its version and of the models."""
    digest = hashlib.sha256(json.dumps([dataset, sha256_of], sort_keys=True).encode()).hexdigest()
    return f"{dataset.removeprefix('data-')}-{digest[:12]}"


def _key(version: str, name: str) -> str:
    return f"{PREFIX}/{version}/{name}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `dvc repro` makes it") from None
