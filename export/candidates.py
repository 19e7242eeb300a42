"""Candidates: trained, judged models in the object store, versioned by their contents.

``models/<version>/`` holds the files; its ``manifest.json`` is written last, so a candidate that has one is
complete. ``export.publication`` writes candidates, ``export.newest`` says which of them bins get.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.store import NoSuchObject, ObjectStore

PREFIX = "models"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_VERSION_LENGTH = 128  # the ledger's column holds as much
# A version and a file's name become parts of local paths, so they can lead to no other folder: no leading
# dot, no two dots, no slash but between two parts of a file's name.
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*"
VERSION = re.compile(NAME)

Version = Annotated[str, StringConstraints(pattern=rf"^{NAME}$", max_length=MAX_VERSION_LENGTH)]
FileName = Annotated[str, StringConstraints(pattern=rf"^{NAME}(?:/{NAME})*$", max_length=256)]

log = logging.getLogger(__name__)


class DamagedCandidate(UserError):
    """A manifest, or what points to it, cannot be what this program wrote."""


class CandidateFile(BaseModel):
    """A file of a candidate: its size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Candidate(BaseModel):
    """The manifest of a candidate.

    It lists the files, the data that the models were trained on, and the headline numbers of each model.
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    version: Version
    published_at: datetime
    dataset: str
    turns: tuple[str, ...]
    commit: str
    files: dict[FileName, CandidateFile]
    scores: dict[str, dict[str, float | int | None]]

    @property
    def order(self) -> tuple[int, datetime]:
        """Its place among candidates: the number of its dataset, then when it was published first."""
        return dataset_number(self.dataset), self.published_at


def dataset_number(version: str) -> int:
    """The number of a dataset version: that of its last turn, so it only grows, also by a compaction.

    -1 for a version without a number, which so stands before all others.

    >>> dataset_number("data-00012"), dataset_number("a trial")
    (12, -1)
    """
    number = re.fullmatch(r"data-(\d+)", version)
    return int(number[1]) if number else -1


def load_candidate(store: ObjectStore, version: str) -> Candidate | None:
    """A candidate by its version, ``None`` if it was never published completely.

    Raises :class:`DamagedCandidate` for a damaged manifest and for what cannot be a version.
    """
    if not VERSION.fullmatch(version) or len(version) > MAX_VERSION_LENGTH:
        raise DamagedCandidate(f"{version[:80]!r} is no version of a candidate: it may lead to another path")
    key = candidate_key(version, MANIFEST_NAME)
    try:
        candidate = Candidate.model_validate_json(store.get(key, MAX_MANIFEST_BYTES))
    except NoSuchObject:
        return None
    except ValidationError as error:
        raise DamagedCandidate(f"{store}: {key} is not a manifest: {error}") from None
    if candidate.version != version:
        raise DamagedCandidate(f"{store}: {key} is not a manifest: it says that it is {candidate.version}")
    return candidate


def list_candidates(store: ObjectStore) -> Iterator[Candidate]:
    """Every complete candidate, by its version. One whose manifest is damaged is left out with a warning."""
    for stored in store.list(f"{PREFIX}/"):
        found = re.fullmatch(rf"{PREFIX}/([^/]+)/{re.escape(MANIFEST_NAME)}", stored.key)
        if found is None:
            continue
        try:
            candidate = load_candidate(store, found[1])
        except DamagedCandidate as error:
            log.warning("%s", error)
            continue
        if candidate is not None:
            yield candidate


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
        data = store.get(candidate_key(candidate.version, name), limit=expected.bytes)
        if (sha256 := hashlib.sha256(data).hexdigest()) != expected.sha256:
            raise UserError(
                f"{store}: {name} of candidate {candidate.version} has SHA-256 {sha256}, "
                f"its manifest says {expected.sha256}"
            )
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    return path


def candidate_key(version: str, name: str) -> str:
    """The key of a candidate's file in the store."""
    return f"{PREFIX}/{version}/{name}"
