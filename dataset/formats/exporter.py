"""Write the dataset, as the log folds it now, in a format that other tools read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataset.formats.coco import write_coco
from dataset.formats.sources import Kind
from dataset.formats.voc import write_voc
from dataset.formats.yolo import write_yolo
from dataset.log import Frame, Frames, Log
from trashnet.errors import UserError

WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


def export_dataset(log: Log, kind: Kind, out: Path) -> None:
    """Write all labelled frames with their newest labels and recorded splits into the new or empty folder ``out``, whole or not at all.

    COCO loses nothing, :func:`dataset.formats.voc.write_voc` and :func:`dataset.formats.yolo.write_yolo` say
    what theirs cannot hold. Frames that nobody has labelled yet are left out: they would pass for
    backgrounds. A frame keeps its file name, with the ending .jpg that it now is; where two would get the
    same, the later one has the first 8 digits of its SHA-256 added. Raises :class:`UserError` if the folder
    is in use.
    """
    if kind not in WRITERS:
        raise UserError(f"format {kind!r} is none of {', '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out}: is not an empty folder. Name a new one: an export never mixes with what is there."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        WRITERS[kind](_named(log.frames()), log.taxonomy, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _named(frames: Frames) -> Iterator[tuple[Frame, str]]:
    """Every frame with a name of its own; two that differ in nothing but case or ending are one to some readers."""
    taken: set[str] = set()
    for frame in frames:
        name = _safe(frame)
        if str(name.with_suffix("")).casefold() in taken:
            name = name.with_stem(f"{name.stem}-{frame.sha256[:8]}")
        if str(name.with_suffix("")).casefold() in taken:
            name = PurePosixPath(f"{frame.sha256}.jpg")
        taken.add(str(name.with_suffix("")).casefold())
        yield frame, str(name)


def _safe(frame: Frame) -> PurePosixPath:
    """The frame's file name as a path that stays inside the folder it is put in."""
    parts = [
        part for part in PurePosixPath(frame.file_name.replace("\\", "/")).parts if part not in ("/", "..")
    ]
    if not parts or "\0" in frame.file_name:
        return PurePosixPath(f"{frame.sha256}.jpg")
    path = PurePosixPath(*parts)
    return path if path.suffix.lower() in (".jpg", ".jpeg") else path.with_suffix(".jpg")
