"""DVC's cache on this machine: what is removed from it, and how files in a clone are made of it.

The clone whose dataset grows and the one that trains share a cache. Every training puts rebalanced copies,
TFRecords and models there, which nobody removes: ``dvc gc`` keeps either all that any commit names, or also
removes what is not in the remote yet. Here

* whatever a ``.dvc`` file names, of any commit that a branch or tag reaches, and whatever the two working
  trees name, is kept: every dataset version stays complete;
* what only ``dvc.lock`` of older trainings names is removed once it is in the store, from where ``dvc pull``
  brings it back;
* what nothing names (a training that died, a turn that was planned anew) is removed.

The remote is never changed.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dataset.versions import DATA
from trashnet.clone import Clone, training_clone_path
from trashnet.ledger import Ledger, Removal
from trashnet.retention import RetentionParams
from trashnet.retries import retry_context
from trashnet.store import NoSuchObject, ObjectStore

DVC_PREFIX = "dvc"  # of the object store, which is the clone's DVC remote
LOCK_FILE = "dvc.lock"
DIRECTORY = ".dir"  # ends the name of a file that lists a folder's files
HASH = re.compile(rf"\b[0-9a-f]{{32}}(?:\{DIRECTORY})?\b")
CACHED = re.compile(rf"[0-9a-f]{{2}}/[0-9a-f]{{30}}(?:\{DIRECTORY})?")
LOCK_TIMEOUT_SECONDS = 600.0  # that dvc may work in a clone
UNUSED, OLDER_TRAININGS = "dvc-cache/unused", "dvc-cache/older-trainings"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the cache: what DVC calls it, and when it was written."""

    md5: str
    path: Path
    bytes: int
    written_at: float

    @property
    def is_directory(self) -> bool:
        """Whether it lists a folder's files."""
        return self.md5.endswith(DIRECTORY)


def clean_cache(
    clone: Clone,
    store: ObjectStore,
    ledger: Ledger,
    params: RetentionParams,
    now: datetime,
    *,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove what no dataset version and no working tree needs from this machine's cache.

    Files younger than ``params.cache_days`` stay: a training may be about to name them. The ledger counts
    what was removed. ``dry_run`` removes nothing. Returns what was, or would be, removed. Raises
    :class:`trashnet.errors.UserError` if the origin or the store cannot be asked; then nothing was removed.
    """
    if params.cache_days is None:
        return []
    clones = _clones(clone)
    root = clone.path / Path(clone.dvc("cache", "dir").strip()) / "files" / "md5"
    before = (now - timedelta(days=params.cache_days)).timestamp()
    with _nobody_writes(clones):
        for one in clones:
            if one.has_remote():  # another machine's versions need their files as well
                every_branch = "+refs/heads/*:refs/remotes/origin/*"
                one.git("fetch", "--quiet", "--force", "--tags", "origin", every_branch)
        files = {file.md5: file for file in _cached_files(root)}
        kept, trained = _named_hashes(clones)
        listed = _folders(files, kept, store)
        unused, stored = choose_removable(
            files, kept, trained, listed, lambda md5: _stored_size(store, md5), before
        )
        if not dry_run:
            for file in in_order(unused, stored):
                file.path.unlink(missing_ok=True)
    removed = [
        Removal(what, len(part), sum(file.bytes for file in part))
        for what, part in ((UNUSED, unused), (OLDER_TRAININGS, stored))
        if part
    ]
    for removal in removed if not dry_run else ():
        ledger.record_removal(removal)
    return removed


def link_files(clone: Clone, params: RetentionParams) -> None:
    """Let files of the clone, and of the one that trains, be made of the cache's as ``params`` says.

    A file that is a hard link of the cache's takes no space of its own. Nothing of a clone is written in
    place: the log's files are renamed into place, and dvc makes links read-only.
    """
    from dvc.config import Config

    for one in _clones(clone):
        with Config(dvc_dir=str(one.path / ".dvc")).edit("local") as config:
            before = config.setdefault("cache", {}).get("type")
            config["cache"]["type"] = list(params.cache_type)
        if before != list(params.cache_type) and (one.path / DATA).is_dir():
            one.dvc("pull", f"{DATA}.dvc")
            one.dvc("checkout", "--relink", f"{DATA}.dvc")


def _clones(clone: Clone) -> list[Clone]:
    """The clone whose dataset grows and, if there is one, the one that trains: they share a cache."""
    training = training_clone_path(clone)
    return [clone, *([Clone(training)] if (training / ".git").exists() else [])]


def address(md5: str) -> str:
    """Where DVC keeps the bytes with this MD5, in a cache and in a remote.

    >>> address("d41d8cd98f00b204e9800998ecf8427e")
    'files/md5/d4/1d8cd98f00b204e9800998ecf8427e'
    """
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def choose_removable(
    files: Mapping[str, CachedFile],
    kept: Set[str],
    trained: Set[str],
    listed: Mapping[str, Set[str]],
    stored_size: Callable[[str], int | None],
    before: float,
) -> tuple[list[CachedFile], list[CachedFile]]:
    """Which files of the cache nothing names, and which only older trainings do and the store has.

    Args:
        files: All there are, by their MD5.
        kept: What must stay: files, and folders with all that they list.
        trained: What trainings made, likewise.
        listed: The files of folders.
        stored_size: The bytes of a file in the store; ``None`` if it is not there.
        before: Files that were written later than this, in seconds since 1970, stay.
    """
    needed = _with_files(kept, listed)
    older = _with_files(trained, listed) - needed
    old = [file for md5, file in sorted(files.items()) if md5 not in needed and file.written_at <= before]
    sizes: dict[str, int | None] = {}

    def is_stored(md5: str) -> bool:
        if md5 not in sizes:
            sizes[md5] = stored_size(md5)
        size = sizes[md5]
        return size is not None and (md5 not in files or size == files[md5].bytes)

    # A folder's list tells later runs whose its files are: it goes only if all of them may.
    stored = [
        file
        for file in old
        if file.md5 in older and all(map(is_stored, {file.md5, *listed.get(file.md5, ())}))
    ]
    return [file for file in old if file.md5 not in older], stored


def in_order(*parts: Iterable[CachedFile]) -> list[CachedFile]:
    """In which order files are removed: a folder's list after its files, which a death may leave behind."""
    return sorted((file for part in parts for file in part), key=lambda file: file.is_directory)


def _with_files(md5s: Set[str], listed: Mapping[str, Set[str]]) -> set[str]:
    return {*md5s, *(file for md5 in md5s for file in listed.get(md5, ()))}


@contextmanager
def _nobody_writes(clones: Sequence[Clone]) -> Iterator[None]:
    """Keep flows and dvc from working in the clones: what dvc caches, it names before it lets go of its lock.

    A stage that runs holds no lock.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    with ExitStack() as stack:
        for clone in clones:
            stack.enter_context(clone.exclusive_lock())
        for clone in clones:
            lock = Repo(str(clone.path)).lock
            for attempt in retry_context(on=LockError, attempts=None, timeout=LOCK_TIMEOUT_SECONDS):
                with attempt:
                    lock.lock()
            stack.callback(lock.unlock)
        yield


def _cached_files(root: Path) -> Iterator[CachedFile]:
    for path in sorted(root.glob("??/*")):
        name = path.relative_to(root).as_posix()
        if CACHED.fullmatch(name):  # a temporary file is another process's
            stat = path.stat()
            yield CachedFile(name.replace("/", ""), path, stat.st_size, stat.st_mtime)


def _named_hashes(clones: Iterable[Clone]) -> tuple[set[str], set[str]]:
    """What ``.dvc`` files of all commits and the working trees name; what ``dvc.lock`` of all commits names.

    Every hash in such a file counts, wherever it stands.
    """
    kept, trained = set[str](), set[str]()
    for clone in clones:
        blobs: dict[bool, list[str]] = {True: [], False: []}
        for line in clone.git("rev-list", "--objects", "--all", "HEAD").splitlines():
            sha1, _, path = line.partition(" ")
            if path.endswith(".dvc") or path.rpartition("/")[2] == LOCK_FILE:
                blobs[path.endswith(".dvc")].append(sha1)
        kept |= _hashes_in(_blobs(clone, blobs[True]))
        trained |= _hashes_in(_blobs(clone, blobs[False]))
        patterns = ("*.dvc", LOCK_FILE, f"*/{LOCK_FILE}")
        present = clone.git("ls-files", "-z", "--cached", "--others", "--", *patterns)
        paths = [clone.path / name for name in present.split("\0") if name]
        kept |= _hashes_in(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    return kept, trained


def _hashes_in(texts: Iterable[str]) -> set[str]:
    return {found for text in texts for found in HASH.findall(text)}


def _blobs(clone: Clone, sha1s: Sequence[str]) -> Iterator[str]:
    """The contents of git's objects, from one process."""
    if not sha1s:
        return
    command = ["git", "cat-file", "--batch=%(objectsize)"]
    listed = subprocess.run(
        command,
        cwd=clone.path,
        env=clone.environment(),
        input="".join(f"{sha1}\n" for sha1 in sha1s).encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    start = 0
    while start < len(listed):
        end = listed.index(b"\n", start)
        size = int(listed[start:end])
        yield listed[end + 1 : end + 1 + size].decode("utf-8", errors="replace")
        start = end + 1 + size + 1


def _folders(
    files: Mapping[str, CachedFile], kept: Iterable[str], store: ObjectStore
) -> dict[str, frozenset[str]]:
    """The files of each folder that the cache or ``kept`` names, by the MD5 of the folder's list.

    A list of ``kept`` that this machine does not have is read from the store. A folder whose list is nowhere
    cannot be checked out, whatever of its files is there.
    """
    found = {md5: _parse_list(file.path.read_bytes()) for md5, file in files.items() if file.is_directory}
    for md5 in kept:
        if md5.endswith(DIRECTORY) and md5 not in found:
            with suppress(NoSuchObject):
                found[md5] = _parse_list(store.get(f"{DVC_PREFIX}/{address(md5)}"))
    return found


def _parse_list(data: bytes) -> frozenset[str]:
    return frozenset(entry["md5"] for entry in json.loads(data))


def _stored_size(store: ObjectStore, md5: str) -> int | None:
    found = store.stat(f"{DVC_PREFIX}/{address(md5)}")
    return None if found is None else found.size
