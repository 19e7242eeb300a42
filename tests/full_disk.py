"""A disk that is soon full.

A program runs in a mount namespace of its own, where a small memory file system is mounted over one folder.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def on_a_small_disk(script: Path, command: Sequence[str | Path], *, size: str) -> Path:
    """Write a script that runs ``command`` with its own arguments; the last is the small folder."""
    words = " ".join(shlex.quote(str(word)) for word in command)
    inner = f'for folder; do :; done; mount -t tmpfs -o size={size} tmpfs "$folder" && exec {words} "$@"'
    become_root = "" if os.geteuid() == 0 else "--map-root-user "
    if subprocess.run(
        f"unshare --mount {become_root}mount -t tmpfs tmpfs /mnt", shell=True, capture_output=True
    ).returncode:
        pytest.skip(
            "this machine allows no mount, not even in a namespace of its own: no small disk can be made"
        )
    script.write_text(f'#!/bin/sh\nexec unshare --mount {become_root}sh -c {shlex.quote(inner)} sh "$@"\n')
    script.chmod(0o755)
    return script
