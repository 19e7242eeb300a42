"""A disk that is soon full: a program runs with a small memory file system mounted over one folder, in a
namespace of its own.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def on_a_small_disk(script: Path, command: Sequence[str | Path], *, size: str) -> Path:
    """Write a program that runs ``command`` with its own arguments, the last of which is the folder that
    holds only ``size``.
    """
    words = " ".join(shlex.quote(str(word)) for word in command)
    inner = f'for folder; do :; done; mount -t tmpfs -o size={size} tmpfs "$folder" && exec {words} "$@"'
    become_root = "" if os.geteuid() == 0 else "--map-root-user "
    if subprocess.run(
        f"unshare --mount {become_root}mount -t tmpfs tmpfs /mnt", shell=True, capture_output=True
    ).returncode:
        pytest.skip(
            "nobody may mount here, not even in a namespace of their own: a disk cannot be made small"
        )
    script.write_text(f'#!/bin/sh\nexec unshare --mount {become_root}sh -c {shlex.quote(inner)} sh "$@"\n')
    script.chmod(0o755)
    return script
