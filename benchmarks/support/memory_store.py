"""The object store's interface over a dictionary, for what is checked hundreds or millions of times."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from trashnet.store import NoSuchObject, ObjectStore, ObjectTooLarge, StoredObject

MODIFIED = datetime(2026, 11, 20, 13, tzinfo=UTC)

Content = tuple[bytes, datetime]  # an object's bytes, and when they were written


class Objects(dict[str, Content]):
    """Objects by their keys; those of one top folder are found without a look at the others."""

    def __init__(self, objects: Iterable[tuple[str, Content]] = ()) -> None:
        """With these objects."""
        super().__init__()
        self._folders: dict[str, dict[str, None]] = {}
        for key, content in objects:
            self[key] = content

    def __setitem__(self, key: str, content: Content) -> None:
        """Write an object."""
        super().__setitem__(key, content)
        self._folders.setdefault(_folder(key), {})[key] = None

    def discard(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.pop(key, None)
        self._folders.get(_folder(key), {}).pop(key, None)

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self._folders.clear()

    def keys_under(self, prefix: str) -> list[str]:
        """The keys with this prefix, in order."""
        one_folder = "/" in prefix
        keys = list(self._folders.get(_folder(prefix), {})) if one_folder else list(self)
        return sorted(key for key in keys if key.startswith(prefix))


def _folder(key: str) -> str:
    return key.partition("/")[0]


class MemoryStore(ObjectStore):
    """A bucket in memory that behaves as a real one; threads may share it."""

    def __init__(
        self, objects: Objects | None = None, now: Callable[[], datetime] = lambda: MODIFIED
    ) -> None:
        """A new bucket, or another view of the bucket with these ``objects``; ``now`` is its clock."""
        self.endpoint, self.bucket = "memory://", "test"
        self.objects = Objects() if objects is None else objects
        self._now = now

    def put(self, key: str, data: bytes, content_type: str = "") -> None:
        """Write an object."""
        self.objects[key] = (data, self._now())

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Read an object."""
        if (found := self.objects.get(key)) is None:
            raise NoSuchObject(key)
        if limit is not None and len(found[0]) > limit:
            raise ObjectTooLarge(key)
        return found[0]

    def get_with_etag(self, key: str, limit: int | None = None) -> tuple[bytes, str | None]:
        """Read an object with its ETag."""
        data = self.get(key, limit)
        return data, _etag(data)

    def put_if_unchanged(self, key: str, data: bytes, etag: str | None, content_type: str) -> bool:
        """Write an object if it still has this ETag, or if there still is none."""
        found = self.objects.get(key)
        if (None if found is None else _etag(found[0])) != etag:
            return False
        self.put(key, data, content_type)
        return True

    def stat(self, key: str) -> StoredObject | None:
        """Size, time and ETag of an object."""
        if (found := self.objects.get(key)) is None:
            return None
        data, modified = found
        return StoredObject(key, len(data), modified, _etag(data))

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """Objects by key."""
        for key in self.objects.keys_under(prefix):
            if (start_after is None or key > start_after) and (found := self.stat(key)):
                yield found

    def copy(self, source: str, target: str) -> None:
        """Copy an object."""
        self.put(target, self.get(source))

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.objects.discard(key)

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects one after the other: a process may die between two of them."""
        for key in keys:
            self.remove(key)


class CountingStore(MemoryStore):
    """Counts the objects that were listed."""

    listed = 0

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """The objects, counted."""
        for stored in super().list(prefix, start_after):
            self.listed += 1
            yield stored


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
