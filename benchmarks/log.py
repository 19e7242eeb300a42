"""Measure the cost of a turn of 500 frames in a log and in loose files, at 1,000 and 50,000 frames."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset import Frame, Labels, Log, append_turn
from trashnet.taxonomy import load_taxonomy

FRAMES_PER_TURN = 500
SIZES = [int(n) for n in sys.argv[1:]] or [1_000, 50_000]
FRAME_BYTES = 8_000  # about a 320 px JPEG; random, so that nothing compresses or deduplicates
TAXONOMY = load_taxonomy(Path(__file__).parent.parent / "taxonomy.yaml")


def frames(first: int, count: int) -> Iterator[Frame]:
    """Frames whose bytes are noise: an append never decodes them."""
    for number in range(first, first + count):
        jpeg = np.random.default_rng(number).bytes(FRAME_BYTES)
        sha = hashlib.sha256(jpeg).hexdigest()
        yield Frame(
            sha256=sha,
            jpeg=jpeg,
            width=320,
            height=320,
            split="train",
            group=sha,
            phash=0,
            file_name=f"{number}.jpg",
        )


def append_frames(root: Path, first: int, count: int) -> float:
    """Append one turn of labelled frames; seconds."""
    new = list(frames(first, count))
    boxes = Labels(
        boxes=np.array([[1.0, 2.0, 30.0, 40.0]] * 4),
        class_ids=np.array([1, 2, 3, 4]),
        crowd=np.zeros(4, bool),
    )
    start = time.perf_counter()
    append_turn(root, "bench", new, [(f.sha256, boxes) for f in new], TAXONOMY)
    return time.perf_counter() - start


def write_loose_files(root: Path, first: int, count: int) -> None:
    """The plain alternative: a JPEG and a label file per frame."""
    root.mkdir(exist_ok=True)
    for frame in frames(first, count):
        (root / f"{frame.sha256}.jpg").write_bytes(bytes(frame.jpeg))
        (root / f"{frame.sha256}.txt").write_text("1 0.1 0.2 0.3 0.4\n" * 4)


def dvc_add(workspace: Path, path: str) -> float:
    """`dvc add`, start of the program included; seconds."""
    start = time.perf_counter()
    subprocess.run([Path(sys.executable).parent / "dvc", "add", "--quiet", path], cwd=workspace, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Grow both to each size, then add one turn to each."""
    os.environ["DVC_NO_ANALYTICS"] = "1"
    print(f"{'frames':>8} {'append':>9} {'open':>8} {'dvc add: log':>13} {'loose files':>12} {'ratio':>7}")
    for size in SIZES:
        workspace = Path(tempfile.mkdtemp(prefix="bench-log-"))
        try:
            subprocess.run(
                [Path(sys.executable).parent / "dvc", "init", "--no-scm", "--quiet"],
                cwd=workspace,
                check=True,
            )
            log, files = workspace / "data", workspace / "files"
            for first in range(0, size, FRAMES_PER_TURN):
                append_frames(log, first, FRAMES_PER_TURN)
            write_loose_files(files, 0, size)
            dvc_add(workspace, "data")
            dvc_add(workspace, "files")
            appended = append_frames(log, size, FRAMES_PER_TURN)
            write_loose_files(files, size, FRAMES_PER_TURN)
            added, added_loose = dvc_add(workspace, "data"), dvc_add(workspace, "files")
            start = time.perf_counter()
            Log(log, TAXONOMY)
            opened = time.perf_counter() - start
            print(
                f"{size:>8,} {appended:>8.2f}s {opened:>7.2f}s {added:>12.1f}s {added_loose:>11.1f}s "
                f"{added_loose / added:>6.1f}x"
            )
        finally:
            shutil.rmtree(workspace)


if __name__ == "__main__":
    main()
