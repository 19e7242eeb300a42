"""List the inbox a stretch at a time, and notice what is new in it.

An inbox may hold a million objects, because what is over a bin's quota waits there. So nobody lists it whole
at once: a listing remembers where it stopped, and leaves the folder of a bin of which it has seen enough.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator

from ingest.object_keys import INBOX, MAX_NAME_LENGTH, NAME
from trashnet.store import REPLACEMENT, ObjectStore, StoredObject

NO_BIN = "-"  # what lies under no bin's name is counted together under this one
AFTER_FOLDER = chr(ord("/") + 1)  # a folder's name with this behind it sorts after all keys of the folder
BIN_NAME = re.compile(NAME)
LISTED_PER_LOOK = 2_000  # objects: two requests to the store
NOTICED_PER_BIN = 1_000  # uploads: whoever takes these in finds the others
LOOK_SECONDS = 1.0  # between two looks


def bin_of(key: str) -> str:
    """The bin whose folder of the inbox a key lies in; :data:`NO_BIN` for a folder that is no bin's.

    >>> bin_of("inbox/bin01/2026-11-20/x.json"), bin_of("inbox/x.json")
    ('bin01', '-')
    """
    folder, slash, _ = key.removeprefix(INBOX).partition("/")
    return folder if slash and len(folder) <= MAX_NAME_LENGTH and BIN_NAME.fullmatch(folder) else NO_BIN


class InboxListing:
    """The inbox's objects in the order of their keys.

    ``position`` is the key after which the listing goes on; ``None`` at its beginning and at its end. Raises
    :class:`trashnet.store.StoreDown` while it is iterated over.
    """

    def __init__(self, store: ObjectStore, position: str | None = None) -> None:
        """Begin after this key; by default with the first object."""
        self._store, self.position = store, position
        self._left: str | None = None

    def __iter__(self) -> Iterator[StoredObject]:
        """List from the position on, which moves along."""
        is_at_end = False
        while not is_at_end:
            is_at_end = True
            for stored in self._store.list(INBOX, self.position):
                if REPLACEMENT not in stored.key:  # no request can say "after" a key that is not UTF-8
                    self.position = stored.key
                yield stored
                if self._left is not None:
                    self.position, self._left = f"{INBOX}{self._left}{AFTER_FOLDER}", None
                    is_at_end = False
                    break
        self.position = None

    def leave_folder(self, bin_id: str) -> None:
        """Go on behind the folder of this bin; :data:`NO_BIN` has none that could be left."""
        if bin_id != NO_BIN:
            self._left = bin_id


def has_uploads(store: ObjectStore) -> bool:
    """Whether any complete upload lies in the inbox, also one that waits; the listing ends at the first."""
    return any(stored.key.endswith(".json") for stored in store.list(INBOX))


class InboxWatch:
    """Notices uploads that were not in the inbox before, with at most two requests a look.

    An inbox with more objects is looked through in several looks. What it remembers grows with what lies in
    the inbox, up to :data:`NOTICED_PER_BIN` keys a bin.
    """

    def __init__(self, store: ObjectStore) -> None:
        """Nothing was seen yet: the first looks notice all that is there."""
        self._store = store
        self._position: str | None = None
        self._before, self._now = set[str](), set[str]()  # keys of the last whole listing, and of this one
        self._per_bin = Counter[str]()

    def look(self) -> int:
        """How many complete uploads the next stretch of the listing has that none before had."""
        listing, new = InboxListing(self._store, self._position), 0
        for listed, stored in enumerate(listing, start=1):
            if stored.key.endswith(".json"):
                new += stored.key not in self._before and stored.key not in self._now
                self._now.add(stored.key)
                bin_id = bin_of(stored.key)
                self._per_bin[bin_id] += 1
                if self._per_bin[bin_id] >= NOTICED_PER_BIN:
                    listing.leave_folder(bin_id)
            if listed >= LISTED_PER_LOOK:
                break
        self._position = listing.position
        if self._position is None:
            self._before, self._now = self._now, set()
            self._per_bin.clear()
        return new

    def wait(self, seconds: float) -> bool:
        """Look again and again until there is something new, or for so many seconds; whether there is."""
        until = time.monotonic() + seconds
        while not self.look():
            if time.monotonic() + LOOK_SECONDS > until:
                return False
            time.sleep(LOOK_SECONDS)
        return True
