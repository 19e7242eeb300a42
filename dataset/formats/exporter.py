"""Export of the dataset, with its newest labels, to a format that other tools read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataset.formats.coco import write_coco
from dataset.formats.sources import Kind
from dataset.formats.voc import write_voc
from dataset.formats.yolo import write_yolo
from dataset.frame import Frame
from dataset.log import Frames, Log
from trashnet.errors import UserError

WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


def export_dataset(log: Log, kind: Kind, out: Path) -> None:
    """Write all labelled frames with their newest labels and recorded splits, as a whole or not at all.

    COCO loses nothing; :func:`dataset.formats.voc.write_voc` and :func:`dataset.formats.yolo.write_yolo` say
    what their formats cannot hold. Unlabelled frames are left out, because they would pass for backgrounds. A
    frame keeps its file name, with the ending ``.jpg``; if two frames would get the same name, the first 8
    digits of the later one's SHA-256 are added to its name.

    Args:
        log: The dataset.
        kind: The format to write.
        out: A folder that is empty or does not exist yet.

    Raises:
        UserError: If ``out`` is in use.
    """
    if kind not in WRITERS:
        raise UserError(f"format {kind!r} is none of {', '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out}: is not an empty folder. Name a new one: an export is not mixed with other files."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        WRITERS[kind](_with_unique_names(log.frames()), log.taxonomy, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _with_unique_names(frames: Frames) -> Iterator[tuple[Frame, str]]:
    """Pair every frame with a file name that is unique even without regard to case and ending."""
    taken: set[str] = set()
    for frame in frames:
        name = _safe_name(frame)
        if str(name.with_suffix("")).casefold() in taken:
            name = name.with_stem(f"{name.stem}-{frame.sha256[:8]}")
        if str(name.with_suffix("")).casefold() in taken:
            name = PurePosixPath(f"{frame.sha256}.jpg")
        taken.add(str(name.with_suffix("")).casefold())
        yield frame, str(name)


def _safe_name(frame: Frame) -> PurePosixPath:
    """Return the frame's file name as a relative path that does not lead out of its folder."""
    parts = [
        part for part in PurePosixPath(frame.file_name.replace("\\", "/")).parts if part not in ("/", "..")
    ]
    if not parts or "\0" in frame.file_name:
        return PurePosixPath(f"{frame.sha256}.jpg")
    path = PurePosixPath(*parts)
    return path if path.suffix.lower() in (".jpg", ".jpeg") else path.with_suffix(".jpg")
