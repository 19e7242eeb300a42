"""The object store: any server that speaks S3, behind one small adapter.

Keys are laid out as ``inbox/<bin>/<date>/<sha256>.jpg`` and then ``.json``, ``frames/<sha256>.jpg``,
``quarantine/<reason>/...``, ``models/<version>/...`` and ``dvc/...``. Nothing is kept in object metadata or
tags, which not every store remembers.
"""

import builtins
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import stamina
import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from trashnet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trashnet.settings import Settings

TRIES = 4
PAGE = 1000  # objects: what S3 lists at once
LONGEST_WAIT = 5.0  # seconds between two tries
CONNECT_SECONDS, READ_SECONDS = 5, 60
PASSING = {
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "OperationAborted",
}
MISSING = {"NoSuchKey", "NoSuchObject", "NotFound"}

P = ParamSpec("P")
R = TypeVar("R")


class NoSuchObject(UserError):
    """There is no object with this key."""


class StoreDown(UserError):
    """The store does not answer, or not in a way that trying again mends."""


class TooLarge(UserError):
    """The object is larger than the caller allows."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as the store lists it: ``size`` in bytes, ``modified`` in UTC."""

    key: str
    size: int
    modified: datetime


def _passing(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, S3Error | InvalidResponseError):
        return _code(error) in PASSING
    return isinstance(error, HTTPError | OSError | ServerError)


def _code(error: S3Error | InvalidResponseError) -> str:
    """S3's word for what went wrong; the client does not read it from answers of type ``text/xml``, as rclone sends them."""
    if isinstance(error, S3Error):
        return str(error.code)
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else "InternalError"  # a proxy's page, say


def _tried(method: "Callable[P, R]") -> "Callable[P, R]":
    """Try again with backoff and jitter while the fault may pass; then say in one line which store and what happened."""
    again = stamina.retry(on=_passing, attempts=TRIES, timeout=None, wait_max=LONGEST_WAIT)(method)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return again(*args, **kwargs)
        except (S3Error, InvalidResponseError) as error:
            if (code := _code(error)) in MISSING:
                raise NoSuchObject(f"{args[0]}: no object {args[1] if len(args) > 1 else ''}") from None
            raise StoreDown(
                f"{args[0]} refused: {code}. Check TRASHNET_S3_ENDPOINT, the keys and the bucket."
            ) from None
        except (HTTPError, MinioException, OSError) as error:
            raise StoreDown(
                f"{args[0]} does not answer ({type(error).__name__} after {TRIES} tries). Is it up? See TRASHNET_S3_ENDPOINT."
            ) from None

    return call


class ObjectStore:
    """One bucket of an S3 server. Every method may raise :class:`StoreDown`; safe to use from many threads."""

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str,
        *,
        connections: int = 32,
    ) -> None:
        """``endpoint`` is a URL, ``http://127.0.0.1:9000``; nothing is sent yet."""
        self.endpoint, self.bucket = endpoint, bucket
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            maxsize=connections,
            retries=False,  # retries are made in one place: above
        )
        scheme, _, host = endpoint.partition("://")
        self._client = Minio(
            host,
            access_key=access_key,
            secret_key=secret_key,
            secure=scheme == "https",
            region=region,
            http_client=pool,
        )

    def __str__(self) -> str:
        return f"object store {self.endpoint}/{self.bucket}"

    @_tried
    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        if not self._client.bucket_exists(bucket_name=self.bucket):
            self._client.make_bucket(bucket_name=self.bucket)

    @_tried
    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object, whole or not at all; an older one of that key is replaced."""
        self._client.put_object(
            bucket_name=self.bucket,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type=content_type,
        )

    @_tried
    def get(self, key: str, limit: int | None = None) -> bytes:
        """Read an object. Raises :class:`NoSuchObject`, and :class:`TooLarge` before more than ``limit`` bytes have been read."""
        answer = self._client.get_object(bucket_name=self.bucket, object_name=key)
        try:
            data: bytes = answer.read() if limit is None else answer.read(limit + 1)
        finally:
            answer.close()  # what was left unread may not be taken for the next answer on this connection
            answer.release_conn()
        if limit is not None and len(data) > limit:
            raise TooLarge(f"{self}: {key} has more than the {limit:,} bytes allowed")
        return data

    def stat(self, key: str) -> Stored | None:
        """The object's size and time, ``None`` if there is none."""
        try:
            return self._stat(key)
        except NoSuchObject:
            return None

    @_tried
    def _stat(self, key: str) -> Stored:
        found = self._client.stat_object(bucket_name=self.bucket, object_name=key)
        return _stored(found, key)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Stored]:
        """The objects under a prefix in the order of their keys, from behind ``start_after`` on; read page by page."""
        while page := self._page(prefix, start_after):
            yield from page
            start_after = page[-1].key

    @_tried
    def _page(self, prefix: str, start_after: str | None) -> "builtins.list[Stored]":
        # A listing that failed half-way would simply end when asked again, and look complete: each page is a
        # listing of its own.
        entries = self._client.list_objects(
            bucket_name=self.bucket, prefix=prefix, recursive=True, start_after=start_after
        )
        return [_stored(entry, str(entry.object_name)) for entry in islice(entries, PAGE)]

    @_tried
    def copy(self, source: str, target: str) -> None:
        """Copy within the store. Raises :class:`NoSuchObject`."""
        self._client.copy_object(
            bucket_name=self.bucket,
            object_name=target,
            source=CopySource(bucket_name=self.bucket, object_name=source),
        )

    def move(self, source: str, target: str) -> None:
        """Copy, then remove the source: a death between the two leaves both, and moving again ends it.

        Raises :class:`NoSuchObject` if neither is there; a source that is gone while the target is there has
        been moved before.
        """
        try:
            self.copy(source, target)
        except NoSuchObject:
            if self.stat(target) is None:
                raise
        self.remove(source)

    @_tried
    def remove(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""
        self._client.remove_object(bucket_name=self.bucket, object_name=key)

    @_tried
    def presigned_get(self, key: str, seconds: int) -> str:
        """An address from which anybody can read the object for so long."""
        return str(
            self._client.presigned_get_object(
                bucket_name=self.bucket, object_name=key, expires=timedelta(seconds=seconds)
            )
        )


def open_store(settings: "Settings") -> ObjectStore:
    """The deployment's object store."""
    return ObjectStore(
        settings.s3_endpoint,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.s3_bucket,
        settings.s3_region,
    )


def _stored(found: Any, key: str) -> Stored:
    return Stored(key=key, size=int(found.size or 0), modified=found.last_modified)
