"""Child processes that do not outlive us."""

import shutil
import subprocess


def die_with_parent() -> list[str]:
    """What to put before a child's command so that the kernel ends it with us.

    Nothing on other systems than Linux.
    """
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def stop_process(process: "subprocess.Popen[bytes]", grace_seconds: float = 20.0) -> None:
    """Ask a child to end, and kill it if it has not ended after ``grace_seconds``."""
    process.terminate()
    try:
        process.wait(timeout=grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
