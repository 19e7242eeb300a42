"""The flywheel as the viewer sees it: champions, the newest candidate and its judgement, the dataset log."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

from export import (
    Candidate,
    ChampionChange,
    Judgement,
    download_model,
    last_change,
    list_champion_changes,
    load_candidate,
    load_champion,
    load_judgement,
    load_newest_candidate,
)
from trashnet.errors import UserError
from trashnet.models import MODELS, ROLES, Role
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store

ENDPOINT_VARIABLE = "TRASHNET_S3_ENDPOINT"
PROBE_SECONDS = 3.0  # the store's own retries take longer than a reader of a page waits

T = TypeVar("T")


@dataclass(frozen=True)
class Deployment:
    """One deployment of the flywheel: its settings say where its store and its clone are."""

    settings: Settings

    @property
    def data(self) -> Path:
        """The dataset log in the clone."""
        return self.settings.clone / "data"

    @property
    def models(self) -> Path:
        """The folder that flows too download models to."""
        return self.settings.clone.parent / "models"

    @property
    def detections(self) -> Path:
        """The folder where detections on gate sets are kept."""
        return self.settings.clone.parent / "viewer"

    def store(self) -> ObjectStore:
        """The object store. Raises :class:`UserError` with the remedy if it does not answer."""
        store = open_store(self.settings)
        try:
            httpx.get(store.endpoint, timeout=PROBE_SECONDS)
        except httpx.HTTPError as error:
            raise UserError(
                f"{store} does not answer ({type(error).__name__}). `trashnet up` starts the stack of this "
                f"folder; for another S3 server see {ENDPOINT_VARIABLE}."
            ) from None
        return store

    def download(self, candidate: Candidate, name: str) -> Path:
        """A file of a candidate, downloaded once; its local path. Raises :class:`UserError`."""
        return download_model(self.store(), candidate, name, self.models)

    def scorecards(self, candidate: Candidate) -> Path:
        """The folder of the scorecards that a candidate brought, downloaded once.

        Raises :class:`UserError` as :meth:`download`.
        """
        for model in MODELS:
            if (name := f"scorecards/{model.name}.json") in candidate.files:
                self.download(candidate, name)
        return self.models / candidate.version / "scorecards"


@dataclass(frozen=True)
class ModelsInUse:
    """What the store says of candidates.

    ``changes``: every change of a champion, oldest first; ``problems``: a sentence for each part that could
    not be read.
    """

    champions: dict[Role, Candidate | None]
    last_changes: dict[Role, ChampionChange | None]
    newest: Candidate | None
    changes: tuple[ChampionChange, ...]
    problems: tuple[str, ...] = ()

    def versions(self) -> list[str]:
        """The newest candidate, then those that are or were in use, the latest first."""
        used = [candidate.version for candidate in self.champions.values() if candidate]
        found = [self.newest.version] if self.newest else []
        found += used + [change.version for change in reversed(self.changes)]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate with what the gate said of it last, ``None`` if it was never judged."""

    candidate: Candidate
    judgement: Judgement | None


def find_deployment(environment_file: Path) -> Deployment | None:
    """The deployment of these settings, ``None`` where nothing says that there is one.

    Raises :class:`UserError` if settings are missing or malformed.
    """
    if not environment_file.is_file() and not os.environ.get(ENDPOINT_VARIABLE):
        return None
    return Deployment(load_settings(environment_file))


def read_models_in_use(deployment: Deployment) -> ModelsInUse:
    """Read everything but judgements. A damaged part is a problem that is named, and hides no other part.

    Raises :class:`UserError` if the store does not answer.
    """
    store, problems = deployment.store(), list[str]()

    def read(part: Callable[[], T], otherwise: T) -> T:
        try:
            return part()
        except UserError as error:
            problems.append(str(error))
            return otherwise

    champions = {role: read(partial(load_champion, store, role), None) for role in ROLES}
    reasons = {role: read(partial(last_change, store, role), None) for role in ROLES}
    newest = read(partial(load_newest_candidate, store), None)
    changes = read(partial(list_champion_changes, store), list[ChampionChange]())
    return ModelsInUse(champions, reasons, newest, tuple(changes), tuple(dict.fromkeys(problems)))


def read_judged_candidate(deployment: Deployment, version: str) -> JudgedCandidate:
    """A candidate and its newest judgement. Raises :class:`UserError` if it is not there or damaged."""
    store = deployment.store()
    return JudgedCandidate(require_candidate(store, version), load_judgement(store, version))


def require_candidate(store: ObjectStore, version: str) -> Candidate:
    """A candidate by its version. Raises :class:`UserError` if it is not there or damaged."""
    candidate = load_candidate(store, version)
    if candidate is None:
        raise UserError(
            f"{store}: there is no candidate {version} any more; `trashnet status` names those in use"
        )
    return candidate
