"""Runs one server so that none of its processes outlives the stack.

Run as ``python -I -S subreaper.py GRACE SIGNAL COMMAND...``. The standard input is a pipe whose other end
only the parent holds. When the parent closes it, or dies, even by ``kill -9``, the server is asked to end by
``SIGNAL`` (a number), and after ``GRACE`` seconds it and all its descendants are killed. A parent-death
signal alone is not enough: it follows the *thread* that started the server, and it does not reach
grandchildren such as a worker's flow runs.

Uses the standard library only, and few of its modules, because one of these runs beside each server.
"""

import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.05


def run_server(command: list[str], grace_seconds: float, stop_signal: int) -> int:
    """Run ``command`` in a process group of its own until it ends, SIGTERM comes or the parent is gone.

    Returns its exit status once no descendant is left.
    """
    _prctl(
        PR_SET_CHILD_SUBREAPER, 1
    )  # orphans of the server become our children, whatever group they moved to
    stop_requested = False

    def request_stop(*_: object) -> None:
        nonlocal stop_requested
        stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    server = os.fork()
    if server == 0:
        _exec(command)
    status = None
    while status is None and not stop_requested:
        if _is_readable(0, POLL_SECONDS) and not os.read(0, 1):  # an end of file: the parent is gone
            break
        status = _reap(server)
    if status is None:
        _kill_group(server, stop_signal)
        deadline = time.monotonic() + grace_seconds
        while status is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            status = _reap(server)
    _kill_group(server, signal.SIGKILL)
    while descendants := _list_children():
        for pid in descendants:
            _kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
        last_status = _reap(server)
        status = last_status if status is None else status
    if status is None:
        return 1
    return status if status >= 0 else 128 - status  # as a shell reports a signal


def _exec(command: list[str]) -> None:
    os.setpgid(0, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # in case this subreaper itself is killed
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def _is_readable(descriptor: int, timeout_seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_seconds)[0])


def _reap(server: int) -> int | None:
    """Reap every child that has ended.

    Returns the server's exit status if it is among them, negative for a signal.
    """
    status = None
    while True:
        try:
            pid, raw_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == server:
            status = os.waitstatus_to_exitcode(raw_status)


def _list_children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # not Linux: killing the process group has to do
        return []


def _kill_group(leader: int, signal_number: int) -> None:
    try:
        os.killpg(leader, signal_number)
    except (ProcessLookupError, PermissionError):  # the group has ended; macOS raises the latter
        return


def _kill(pid: int, signal_number: int) -> None:
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(run_server(sys.argv[3:], grace_seconds=float(sys.argv[1]), stop_signal=int(sys.argv[2])))
