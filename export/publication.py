"""Publication: what was trained in a clone becomes a candidate in the store, its manifest last."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataset import Log
from evaluation import Scorecard
from export.candidates import (
    MANIFEST_NAME,
    Candidate,
    CandidateFile,
    DamagedCandidate,
    candidate_key,
    dataset_number,
    load_candidate,
)
from export.champions import keep_champions_of_before_the_gate
from export.newest import advance_newest, load_newest_candidate
from trashnet.clone import Clone
from trashnet.errors import UserError
from trashnet.ledger import Ledger
from trashnet.models import EDGETPU_REPORT_FILE, SHIPPED_FILES
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy

PIPELINE_FILE = "dvc.yaml"  # names the stages to dvc, which tracks other files of the repository too
CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


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
    """Upload a candidate, and make it the newest one if it is beyond all that were (:mod:`export.newest`).

    Nothing uses it before the gate lets it through (:mod:`export.champions`).
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
        UserError: A file is missing, or a name cannot be a candidate's; then nothing was uploaded.
    """
    contents = {name: _read(path) for name, path in sorted({**models, **attachments}.items())}
    files = {
        name: CandidateFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    version = _version(dataset, {name: files[name].sha256 for name in models})
    candidate = load_candidate(store, version)
    if candidate is None:
        candidate = _manifest(
            version=version,
            published_at=_publication_time(store),
            dataset=dataset,
            turns=turns,
            commit=commit,
            files=files,
            scores={model: dict(values) for model, values in scores.items()},
        )
        for name, data in contents.items():
            content_type = CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
            store.put(candidate_key(version, name), data, content_type)
        manifest = candidate.model_dump_json(indent=2).encode()
        store.put(candidate_key(version, MANIFEST_NAME), manifest, CONTENT_TYPES[".json"])
    keep_champions_of_before_the_gate(store)
    advance_newest(store, candidate)
    return candidate


def publish_trained_models(
    training: Clone, store: ObjectStore, ledger: Ledger, taxonomy: Taxonomy, commit: str | None = None
) -> Candidate:
    """Publish the models that were trained in a clone.

    Pushes the outputs to the DVC remote, tags ``dvc.lock`` and uploads the candidate to the store. The frames
    that the models were trained on become ``released``. Each step may be repeated: a call after a crash, or
    after success, makes nothing twice.

    Args:
        training: Where the models were trained.
        store: Where the candidate goes.
        ledger: Knows the frames that the models were trained on.
        taxonomy: The classes of the dataset.
        commit: What was trained, where an event names it.

    Raises:
        UserError: A stage in the clone is not up to date, or this clone is not the one that the training ran
            in: it lacks the commit, or its data is older than the newest candidate's and no commit was named.
    """
    with training.exclusive_lock():  # a retraining that begins meanwhile would change what is being read
        _refuse_old_clone(training, store, commit)
        if stale := json.loads(training.dvc("status", "--json", PIPELINE_FILE, "data.dvc") or "{}"):
            raise UserError(
                f"{training.path}: not trained to the end; `dvc repro` would still run {', '.join(stale)}. "
                "Run retrain first."
            )
        scorecards = sorted((training.path / "build" / "scorecards").glob("*.json"))
        training.dvc("push", PIPELINE_FILE)
        training.commit("Models trained", "dvc.lock", "params.yaml")
        log = Log(training.path / "data", taxonomy)
        candidate = publish_candidate(
            store,
            _shipped_models(training),
            _attachments(training, scorecards),
            dataset=training.dataset_version() or f"data-{log.turns[-1].split('-')[0]}",
            turns=tuple(log.turns),
            commit=training.head(),
            scores={path.stem: Scorecard.load(path).headline() for path in scorecards},
        )
        tag = f"models-{candidate.version}"
        # The commit of a publication that died, if that had got as far as the manifest.
        training.tag(tag, candidate.commit if training.has_commit(candidate.commit) else "HEAD")
        training.push_tag(tag)
        ledger.mark_trained(log.turns)
        return candidate


def _refuse_old_clone(training: Clone, store: ObjectStore, commit: str | None) -> None:
    """Raise unless this clone is where the training to publish ran, as far as that can be known."""
    if commit is not None:
        if not training.contains(commit):
            raise UserError(
                f"{training.path}: the training of commit {commit} ran on another machine; this clone is at "
                f"{training.head()}. Publish there, or run retrain here."
            )
        return
    newest, dataset = _newest_or_none(store), training.dataset_version()
    if newest is not None and dataset is not None and dataset_number(dataset) < newest.order[0]:
        raise UserError(
            f"{training.path}: this clone trained {dataset}, and candidate {newest.version} of "
            f"{newest.dataset} was published since. Run retrain here first; publishing this older training "
            "on purpose takes its commit: `prefect deployment run publish/publish --param commit=...`"
        )


def _shipped_models(training: Clone) -> dict[str, Path]:
    models = training.path / "build" / "models"
    return {path.name: path for path in sorted(models.iterdir()) if path.name in SHIPPED_FILES}


def _attachments(training: Clone, scorecards: Sequence[Path]) -> dict[str, Path]:
    build = training.path / "build"
    return {f"scorecards/{path.name}": path for path in scorecards} | {
        "report.html": build / "report.html",
        EDGETPU_REPORT_FILE: build / "models" / EDGETPU_REPORT_FILE,
    }


def _manifest(**values: Any) -> Candidate:
    try:
        return Candidate(**values)
    except ValidationError as error:
        raise UserError(f"models of dataset {values['dataset']} cannot be a candidate: {error}") from None


def _publication_time(store: ObjectStore) -> datetime:
    """Now, or just behind the newest candidate where this machine's clock is behind that one's."""
    newest, now = _newest_or_none(store), datetime.now(UTC)
    return now if newest is None else max(now, newest.published_at + timedelta(microseconds=1))


def _newest_or_none(store: ObjectStore) -> Candidate | None:
    """The newest candidate; ``None`` too where its pointer is damaged, which publishing writes anew."""
    try:
        return load_newest_candidate(store)
    except DamagedCandidate:
        return None


def _version(dataset: str, sha256_of: Mapping[str, str]) -> str:
    """``00002-0123456789ab``: the dataset's number and a digest of its version and of the models."""
    digest = hashlib.sha256(json.dumps([dataset, sha256_of], sort_keys=True).encode()).hexdigest()
    return f"{dataset.removeprefix('data-')}-{digest[:12]}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `dvc repro` makes it") from None
