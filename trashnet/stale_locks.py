"""Lock files that a killed git or dvc left in a clone. Both programs would refuse to work there for ever.

Git names no owner in its lock files, so they are removed where nobody else can be at work. Dvc names a
process by its number, which after a restart of the machine, or of a container, is another program's.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

OWN_LOCK = "flywheel.lock"  # in the git folder itself, not that of a branch; the kernel releases it
PACKED_REFERENCES_LOCK = "packed-refs.lock"  # git's own maintenance may hold it, which runs in the background
MAX_GIT_LOCK_SECONDS = 30.0  # git holds a lock of references for milliseconds
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def remove_git_locks(git_folder: Path) -> None:
    """Remove what git locked in a clone. Call it only while nobody else works there."""
    for folder, folders, names in os.walk(git_folder):
        if "objects" in folders:
            folders.remove("objects")  # many files, and none of git's commands in a clone locks one of them
        for name in names:
            path = Path(folder) / name
            if name == PACKED_REFERENCES_LOCK:
                _remove_if_old(path)
            elif path.suffix == ".lock" and path != git_folder / OWN_LOCK:
                path.unlink(missing_ok=True)


def remove_old_reference_locks(git_folder: Path, branch: str) -> None:
    """Remove old locks of a branch and of all tags, in a repository on this machine that others use too."""
    references = git_folder / "refs"
    for path in (references / "heads" / f"{branch}.lock", *(references / "tags").glob("*.lock")):
        _remove_if_old(path)


def _remove_if_old(lock: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - lock.stat().st_mtime > MAX_GIT_LOCK_SECONDS:
            lock.unlink()


def forget_dead_dvc(dvc_folder: Path) -> None:
    """Take processes that are gone out of dvc's list of what is being read and written.

    A list that cannot be read was cut off while it was written, and is removed.
    """
    path = dvc_folder / "tmp" / "rwlock"
    if not path.exists():
        return
    with _locked(path.with_name("rwlock.lock")):
        try:
            written, users = path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))
            kept = _living_users(users, written)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            path.unlink()
            return
        if kept == {"write": {}, "read": {}}:
            path.unlink()
        elif kept != users:
            part = path.with_suffix(".part")
            part.write_text(json.dumps(kept), encoding="utf-8")
            os.utime(part, (written, written))
            part.replace(path)


def _living_users(users: dict[str, Any], written: float) -> dict[str, Any]:
    """Of one writer and several readers of each path, those that are still there."""
    writers, readers = users.get("write", {}), users.get("read", {})
    alive = {name: [info for info in infos if _is_alive(info, written)] for name, infos in readers.items()}
    return {
        "write": {name: info for name, info in writers.items() if _is_alive(info, written)},
        "read": {name: infos for name, infos in alive.items() if infos},
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock of dvc's as dvc does; the file stays."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_alive(info: Any, written: float) -> bool:
    """Whether the process that was noted before ``written`` is there, and not a younger one of its number."""
    try:
        ticks = int(Path(f"/proc/{info['pid']}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()  # without `/proc` dvc itself looks for the process
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    started = time.time() - uptime + ticks / CLOCK_TICKS
    return started < written + 1
