"""Two models' stored per-frame matches side by side: which items one sorts right and the other does not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.frame_matches import MISSED_CODE, RIGHT_CODE, FrameMatches
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

SHOWN = 10  # classes that changed most


@dataclass(frozen=True)
class PairedMatches:
    """What became of the same items with two models.

    ``class_ids``: int64 ``(N,)``; ``before``, ``after``: bool ``(N,)``, whether each item arrives in its
    stream, a missed one by the default stream.
    """

    names: tuple[str, str]
    class_ids: NDArray[np.int64]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]

    def table(self, taxonomy: Taxonomy) -> str:
        """The counts, and the classes that changed most, as Markdown."""
        gained, lost = self.after & ~self.before, self.before & ~self.after
        first, second = self.names
        lines = [
            f"{len(self.class_ids)} items on the same frames with the same labels: {int(gained.sum())} are "
            f"right with {second} alone, {int(lost.sum())} with {first} alone.",
            "",
            f"| class | items | right with {first} | right with {second} | won | lost |",
            "|---|---|---|---|---|---|",
        ]
        moved, counts_moved = np.unique(self.class_ids[gained | lost], return_counts=True)
        for class_id in moved[np.argsort(-counts_moved, kind="stable")][:SHOWN].tolist():
            of = self.class_ids == class_id
            counts = [part[of].sum() for part in (self.before, self.after, gained, lost)]
            cells = " | ".join(str(int(count)) for count in counts)
            lines.append(f"| {taxonomy.name_of[class_id]} | {int(of.sum())} | {cells} |")
        return "\n".join(lines)


def pair_matches(before: FrameMatches, after: FrameMatches, taxonomy: Taxonomy) -> PairedMatches:
    """Pair two models' outcomes, item by item.

    Raises :class:`UserError` if they were judged on other frames or labels, or with classes that the taxonomy
    does not have.
    """
    before.require_same_truth(after)
    unknown = set(np.unique(before.item_class_ids).tolist()) - taxonomy.name_of.keys()
    if unknown:
        raise UserError(
            f"{before.model}: its matches have items of class {min(unknown)}, which taxonomy.yaml does not "
            "have; pair them with the taxonomy that the frames were labelled with"
        )
    in_default = np.array(
        [taxonomy.stream_of[c] == taxonomy.default_stream for c in before.item_class_ids.tolist()], np.bool_
    )

    def right(of: FrameMatches) -> NDArray[np.bool_]:
        arrived: NDArray[np.bool_] = (of.outcomes == RIGHT_CODE) | ((of.outcomes == MISSED_CODE) & in_default)
        return arrived

    names = (before.model, after.model)
    if names[0] == names[1]:
        names = (f"{names[0]} before", f"{names[1]} after")
    return PairedMatches(names, before.item_class_ids, right(before), right(after))
