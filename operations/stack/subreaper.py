"""Stands between the stack and one server, so that no server outlives it.

Run as ``python -I -S subreaper.py GRACE SIGNAL COMMAND...``.

The standard input is a pipe whose other end only the starter holds. When that closes, even by ``kill -9`` of
the starter, the server and all its descendants are asked to end by ``SIGNAL`` (a number) and after ``GRACE``
seconds made to. A parent-death signal alone would not do: it follows the *thread* that started the server,
and it does not reach grandchildren such as a worker's flow runs.

Standard library only, and few of its modules: one of these runs beside each server.
"""

import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.05


def keep(command: list[str], grace: float, asking: int) -> int:
    """Run ``command`` in a process group of its own until it ends, SIGTERM comes or the starter is gone.

    Return its exit status.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the server become ours, whatever group they moved to
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    child = os.fork()
    if child == 0:
        _become(command)
    status = None
    while status is None and not asked:
        # An end of file is readable: the starter has gone.
        if _readable(0, POLL_SECONDS) and not os.read(0, 1):
            break
        status = _reap(child)
    if status is None:
        _kill_group(child, asking)
        deadline = time.monotonic() + grace
        while status is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            status = _reap(child)
    _kill_group(child, signal.SIGKILL)
    while descendants := _children():
        for pid in descendants:
            _kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
        ended = _reap(child)
        status = ended if status is None else status
    return 1 if status is None else status if status >= 0 else 128 - status


def _become(command: list[str]) -> None:
    os.setpgid(0, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # for the case that the subreaper itself is killed
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def _reap(child: int) -> int | None:
    """Collect every descendant that has ended.

    The exit status of ``child`` if it is among them (negative: by that signal).
    """
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(raw)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listed:
            return [int(pid) for pid in listed.read().split()]
    except FileNotFoundError:  # not Linux: the process group has to do
        return []


def _kill_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):  # an ended group; macOS says so by the latter
        return


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[3:], grace=float(sys.argv[1]), asking=int(sys.argv[2])))
