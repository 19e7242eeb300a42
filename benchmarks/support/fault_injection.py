"""Processes that die on purpose: a store and a ledger whose next effect may be the last."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.support.memory_store import MemoryStore, Objects
from trashnet.ledger import Ledger

ROOMS = ("dataset.", "export.", "ingest.", "labeling.", "selection.", "training.", "trashnet.")


class Killed(BaseException):
    """The process dies here: nothing may catch it."""


class Fuse:
    """Counts effects and dies at the one it is set to."""

    def __init__(self, at: int | None = None) -> None:
        """``at``: the effect that is the last, 0 the first; ``None`` for never."""
        self.at, self.effects = at, 0

    def burn(self) -> None:
        """One effect."""
        if self.effects == self.at:
            raise Killed
        self.effects += 1


class OnceEach(Fuse):
    """Dies once at every place of the product's code, told apart by who called it, that has an effect on the
    world.
    """

    def __init__(self) -> None:
        """Nobody has died yet."""
        super().__init__()
        self.places: set[tuple[tuple[str, int], ...]] = set()

    def burn(self) -> None:
        """One effect: the first time from this place it is not reached."""
        stack = (frame for frame, _ in traceback.walk_stack(sys._getframe()))
        place = tuple(
            (frame.f_code.co_filename, frame.f_lineno)
            for frame in stack
            if frame.f_globals.get("__name__", "").startswith(ROOMS)
        )
        if place not in self.places:
            self.places.add(place)
            raise Killed
        super().burn()


class FusedStore(MemoryStore):
    """A store whose writes may be the last thing a process does; it shares its objects with another one."""

    def __init__(self, objects: Objects, fuse: Fuse, **options: Any) -> None:
        """Over the same objects as another store."""
        super().__init__(objects, **options)
        self.fuse = fuse

    def put(self, key: str, data: bytes, content_type: str = "") -> None:
        """Write, unless dead."""
        self.fuse.burn()
        super().put(key, data)

    def remove(self, key: str) -> None:
        """Remove, unless dead."""
        self.fuse.burn()
        super().remove(key)


class FusedLedger(Ledger):
    """A ledger whose transactions may be the last thing a process does: before they are committed."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        """Open an existing ledger."""
        super().__init__(url)
        self.fuse = fuse

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Everything within happens, or dies with the process."""
        with super().transaction() as connection:
            yield connection
            self.fuse.burn()

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """What was read is acted upon, or the process is dead by then."""
        with super().reading() as connection:
            yield connection
        self.fuse.burn()
