"""Compaction as an operator asks for it, and where DVC keeps the bytes of the files that it replaced."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from dataset.cache import DVC_PREFIX, address
from dataset.withdrawal import Compaction
from trashnet.clone import Clone
from trashnet.store import ObjectStore

TRAINING_COPIES = ("build/rebalanced", "build/tfrecords")  # outputs of stages that hold frames


@dataclass(frozen=True, slots=True)
class OldFile:
    """A replaced file of the dataset: its turn, and where its bytes are in the cache and in the store."""

    turn: str
    cache: Path
    key: str


def old_files(clone: Clone, compaction: Compaction) -> list[OldFile]:
    """Where the bytes of a compaction's replaced files are kept for the older dataset versions."""
    cache = Path(clone.dvc("cache", "dir").strip())
    return [
        OldFile(turn, cache / address(md5), f"{DVC_PREFIX}/{address(md5)}")
        for turn, md5 in compaction.old_files.items()
    ]


def training_copies(clone: Clone) -> Iterator[tuple[str, str, str]]:
    """The outputs of published trainings that hold copies of frames: a tag, a path and the MD5 in DVC."""
    for tag in clone.git("tag", "--list", "models-*").split():
        if not clone.git("ls-tree", "--name-only", tag, "dvc.lock").strip():
            continue
        lock = yaml.safe_load(clone.git("show", f"{tag}:dvc.lock"))
        for stage in (lock.get("stages") or {}).values():
            for output in stage.get("outs", []):
                if output["path"] in TRAINING_COPIES:
                    yield tag, output["path"], output["md5"]


def purge(store: ObjectStore, files: list[OldFile]) -> None:
    """Remove the replaced files' bytes from this machine's cache and from the store."""
    for file in files:
        store.remove(file.key)
        file.cache.unlink(missing_ok=True)
