"""The report of an import: what entered the log, what was changed on the way, and what was left out."""

from dataclasses import dataclass, field

from dataset.formats.faults import Fault, listing
from dataset.frame import SPLITS


@dataclass(slots=True)
class ImportReport:
    """What an import did; ``turn`` is ``None`` if the log held all of it already."""

    turn: str | None = None
    frames: int = 0  # new in the log
    known: int = 0  # frames that the log held already
    boxes: int = 0  # on all frames of the data set
    backgrounds: int = 0  # frames of the data set without a box
    relabelled: int = 0  # known frames whose labels the data set corrects
    repeated: int = 0  # images whose bytes equal those of another image of the data set
    clipped: int = 0  # boxes that reached outside by a pixel or less
    splits: dict[str, int] = field(default_factory=dict)  # of the new frames
    converted: dict[str, int] = field(default_factory=dict)  # converted images by what was done
    dropped: dict[str, int] = field(default_factory=dict)  # boxes by category that is mapped to none
    unused: list[str] = field(default_factory=list)  # mapped names that the data set does not have
    left_out: list[Fault] = field(default_factory=list)  # with skip_invalid: the faults

    def summary(self) -> str:
        """Return the report as text."""
        lines = [
            f"turn {self.turn}: {self.frames:,} new frames, {self.relabelled:,} relabelled"
            if self.turn
            else "nothing new: the log holds all of this already",
            f"  source: {self.frames + self.known:,} frames, {self.boxes:,} boxes, "
            f"{self.backgrounds:,} frames without a box",
        ]
        if self.frames:
            lines.append(
                "  new frames: " + ", ".join(f"{self.splits.get(split, 0):,} {split}" for split in SPLITS)
            )
        if self.known:
            lines.append(f"  in the log before: {self.known:,} frames")
        if self.repeated:
            lines.append(f"  the same bytes under another name: {self.repeated:,} images, entered once")
        if self.clipped:
            lines.append(
                f"  clipped: {self.clipped:,} boxes that reached outside their image by a pixel or less"
            )
        lines += [f"  {what}: {count:,} images" for what, count in sorted(self.converted.items())]
        lines += [
            f"  left out as the mapping says: {count:,} boxes of {name!r}"
            for name, count in sorted(self.dropped.items())
        ]
        if self.unused:
            lines.append(f"  in the mapping, but not in the source: {', '.join(map(repr, self.unused))}")
        if self.left_out:
            lines.append("LEFT OUT, because something was wrong:")
            lines.append(listing(self.left_out))
        return "\n".join(lines)
