"""Backup and restore of the embedded stack: everything in its folder that no command can make anew.

The parts are copied in the order in which one vouches for the next: the ledger's rows name tasks, turns and
objects, so these are copied after it. Whatever the running stack does meanwhile, the copy of the ledger then
never names anything that the backup lacks; what it does not name yet is found and entered by the next runs.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from operations.stack.run_state import (
    DATABASE_VARIABLES,
    StackPaths,
    exclusive_lock,
    is_sqlite,
    read_environment_file,
)
from trashnet.clone import BRANCH, Clone
from trashnet.errors import UserError
from trashnet.progress import track

FORMAT = 1
MANIFEST = "manifest.json"  # written last: a backup that has one is complete
CLONE_BUNDLE = "clone.bundle"
SQLITE_HEADER = b"SQLite format 3\x00"
SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")
BUSY_TIMEOUT_SECONDS = 60.0
# In this order. The clone is a git bundle, because files of a working git change while they are copied.
PARTS = ("ledger.sqlite", "label-studio", "prefect", CLONE_BUNDLE, "s3", "stack.env", "stack.json")


class BackupFile(BaseModel):
    """A file of a backup: its size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True, strict=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a backup holds: its files by their paths in it."""

    model_config = ConfigDict(frozen=True)

    format: int
    created_at: datetime
    files: dict[str, BackupFile]


def back_up(paths: StackPaths, target: Path) -> Manifest:
    """Write a backup of the stack, running or not, to the new folder ``target``.

    Raises :class:`UserError` if there is no stack, if ``target`` exists, or if a database is no SQLite file.
    """
    environment = read_environment_file(paths.environment)
    if not environment:
        raise UserError(f"{paths.folder}: no embedded stack here; run this where `trashnet up` ran")
    for variable, what in DATABASE_VARIABLES.items():
        if not is_sqlite(environment.get(variable, "sqlite")):
            raise UserError(
                f"{what} is in a database server ({variable}): back it up with that server's own tools "
                "(`pg_dump`)"
            )
    if target.exists():
        raise UserError(f"{target}: exists already; name a folder that does not")
    unfinished = target.with_name(f".{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)  # credentials are in it
    for part in PARTS:
        if part == CLONE_BUNDLE:
            _bundle_clone(paths.folder / "clone", unfinished / part)
        else:
            _copy(paths.folder / part, unfinished / part)
    copied = [path for path in sorted(unfinished.rglob("*")) if path.is_file()]
    files = {
        str(path.relative_to(unfinished)): BackupFile(bytes=path.stat().st_size, sha256=_digest(path))
        for path in track(copied, len(copied), "read what was copied", "file")
    }
    manifest = Manifest(format=FORMAT, created_at=datetime.now(UTC), files=files)
    (unfinished / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    os.sync()
    unfinished.rename(target)
    return manifest


def restore(paths: StackPaths, source: Path, *, replace: bool = False) -> Path | None:
    """Bring the stack's folder back from a backup; where the old folder went, ``None`` if there was none.

    ``replace`` moves an existing stack aside; nothing is deleted. Raises :class:`UserError` if the backup is
    incomplete or damaged, if there is a stack and ``replace`` is not given, or if the stack runs. The stack
    that is there is touched only when the backup was read to its end.
    """
    manifest = _verified_manifest(source)
    aside = None
    if paths.folder.exists() and any(paths.folder.iterdir()):
        if not replace:
            raise UserError(f"{paths.folder}: there is a stack already. `--replace` moves it aside first")
        with exclusive_lock(paths):  # it does not run
            aside = paths.folder.with_name(f"{paths.folder.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}")
    unfinished = paths.folder.with_name(f"{paths.folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    for name in track(manifest.files, len(manifest.files), "bring back", "file"):
        if name != CLONE_BUNDLE:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, unfinished / name)
    if CLONE_BUNDLE in manifest.files:
        repository = read_environment_file(unfinished / "stack.env").get("TRASHNET_REPOSITORY", "")
        _clone_bundle(source / CLONE_BUNDLE, unfinished / "clone", repository)
    os.sync()
    if aside is not None:
        paths.folder.rename(aside)
    elif paths.folder.exists():
        paths.folder.rmdir()
    unfinished.rename(paths.folder)
    return aside


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        _copy_file(source, target)
        return
    paths = list(_files(source))
    for path in track(paths, len(paths), f"copy {source.name}", "file"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            _copy_file(path, copy)
        except FileNotFoundError:  # removed meanwhile by the running stack
            continue


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(SQLITE_COMPANIONS):
            yield path


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; a database through its own backup interface, which sees one state of it."""
    with source.open("rb") as file:
        is_database = file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    if not is_database:
        shutil.copy2(source, target)
        return
    address = f"{source.absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS)) as database,
        closing(sqlite3.connect(target)) as copy,
    ):
        database.backup(copy)
    target.chmod(0o600)


def _bundle_clone(clone: Path, target: Path) -> None:
    if (clone / ".git").exists():
        Clone(clone).git("bundle", "create", "--quiet", str(target.absolute()), BRANCH, "--tags")


def _clone_bundle(bundle: Path, target: Path, origin: str) -> None:
    """Make the clone from its bundle; `trashnet setup` makes what git ignores there at the next start."""
    command = ["git", "clone", "--quiet", "--branch", BRANCH, str(bundle.absolute()), str(target)]
    cloned = subprocess.run(command, capture_output=True, text=True, check=False)
    if cloned.returncode:
        raise UserError(f"{bundle}: the clone cannot be restored: {cloned.stderr.strip()}")
    Clone(target).git("remote", "set-url", "origin", origin)


def _verified_manifest(source: Path) -> Manifest:
    path = source / MANIFEST
    if not path.is_file():
        raise UserError(f"{source}: no complete backup; {MANIFEST}, which is written last, is missing")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: not the manifest of a backup: {error.errors()[0]['msg']}") from None
    if manifest.format != FORMAT:
        raise UserError(f"{path}: format {manifest.format}; this version reads format {FORMAT}")
    if outside := [name for name in manifest.files if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise UserError(f"{path}: {outside[0]!r} lies outside the backup; nothing was restored")
    for name, file in track(manifest.files.items(), len(manifest.files), "check the backup", "file"):
        if not (source / name).is_file() or _digest(source / name) != file.sha256:
            raise UserError(f"{source / name}: missing or damaged; nothing was restored. Use another backup")
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
