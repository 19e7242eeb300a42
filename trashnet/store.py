"""The object store: any server that speaks S3, behind one small adapter.

The keys are ``inbox/<bin>/<date>/<sha256>.jpg``, its sidecar ``....json``, ``frames/<sha256>.jpg``,
``quarantine/<reason>/...``, ``models/<version>/...`` and ``dvc/...``. Nothing is kept in object metadata or
tags, because not every store keeps them.
"""

import builtins
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from trashnet.errors import UserError
from trashnet.retries import retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from trashnet.settings import Settings

MAX_ATTEMPTS = 4
MAX_WAIT_SECONDS = 5.0  # between two attempts
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # stands for bytes of a key that are not UTF-8
PAGE_SIZE = 1000  # objects: the most that S3 lists in one response
CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 5, 60
# fmt: off
TRANSIENT_CODES = {
    "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling", "OperationAborted",
}
# fmt: on
# Control characters that XML 1.0 allows (section 2.2), and where those begin that stand in for the others.
VALID_CONTROLS, FIRST_PRINTABLE, STAND_INS = {0x09, 0x0A, 0x0D}, 0x20, 0xF0000
INVALID_REFERENCE = re.compile(rb"&#(x[0-9a-fA-F]+|[0-9]+);", re.IGNORECASE)
INVALID_BYTE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
NOT_FOUND_CODES = {"NoSuchKey", "NoSuchObject", "NotFound"}
CHANGED_CODES = {"PreconditionFailed", "ConditionalRequestConflict"}  # answers to `If-Match`
UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed"}
# Keys that every XML parser reads as they were written: no control character, no space at an end.
PLAIN_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")

P = ParamSpec("P")
R = TypeVar("R")


class NoSuchObject(UserError):
    """There is no object with this key."""


class StoreDown(UserError):
    """The store does not answer, or answers with an error that a retry does not fix."""


class ObjectTooLarge(UserError):
    """The object, whose ETag this is, is larger than the caller allows."""

    def __init__(self, message: str, etag: str | None = None) -> None:
        super().__init__(message)
        self.etag = etag


class UnusableKey(UserError):
    """No request can name this key, although the store may list it: it has a segment ``.`` or ``..``."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store lists it: ``size`` in bytes, ``modified`` in UTC.

    ``etag`` changes with its bytes.
    """

    key: str
    size: int
    modified: datetime
    etag: str | None = None


def _is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, S3Error | InvalidResponseError):
        return _error_code(error) in TRANSIENT_CODES
    return isinstance(error, HTTPError | OSError | ServerError)


def _error_code(error: S3Error | InvalidResponseError) -> str:
    """S3's code of an error. The client does not parse responses of type ``text/xml``, which rclone sends."""
    if isinstance(error, S3Error):
        return str(error.code)
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else "InternalError"  # for instance the error page of a proxy


def _retried(method: "Callable[P, R]") -> "Callable[P, R]":
    """Retry a method on transient errors, with backoff and jitter.

    If that does not help, raise an error whose one line names the store and what happened.
    """
    retried = retry(on=_is_transient, attempts=MAX_ATTEMPTS, timeout=None, wait_max=MAX_WAIT_SECONDS)
    with_retries = retried(method)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return with_retries(*args, **kwargs)
        except (S3Error, InvalidResponseError) as error:
            if (code := _error_code(error)) in NOT_FOUND_CODES:
                raise NoSuchObject(f"{args[0]}: no object {args[1] if len(args) > 1 else ''}") from None
            raise StoreDown(
                f"{args[0]} refused: {code}. Check TRASHNET_S3_ENDPOINT, the keys and the bucket."
            ) from None
        except ValueError as error:  # of the client, before it sends a request
            raise UnusableKey(f"{args[0]}: {error}: {args[1:]!r}") from None
        except (HTTPError, MinioException, OSError) as error:
            raise StoreDown(
                f"{args[0]} does not answer ({type(error).__name__} after {MAX_ATTEMPTS} tries). "
                "Is it up? See TRASHNET_S3_ENDPOINT."
            ) from None

    return call


class _ListingPool(urllib3.PoolManager):
    """HTTP connections that make listings readable in which a key has a control character.

    XML 1.0 has no way to write such a character. S3 servers send a reference to it all the same (rclone) or
    the character itself, and a parser then refuses the whole listing: one upload would hide all others. Each
    is replaced by a character of Unicode's private plane 15, and replaced back in the key.
    """

    def urlopen(self, method: str, url: str, redirect: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]
        """Send a request; the body of a listing is repaired."""
        response = super().urlopen(method, url, redirect, **kwargs)
        if method != "GET" or "list-type=2" not in url or response.status != HTTPStatus.OK:
            return response
        body = INVALID_REFERENCE.sub(_stand_in, response.data)
        body = INVALID_BYTE.sub(lambda found: chr(STAND_INS + found[0][0]).encode(), body)
        headers = {
            name: value for name, value in response.headers.items() if name.lower() != "content-length"
        }
        return urllib3.HTTPResponse(io.BytesIO(body), headers, response.status, preload_content=True)


def _stand_in(reference: "re.Match[bytes]") -> bytes:
    digits = reference[1]
    code = int(digits[1:], 16) if digits[:1] in b"xX" else int(digits)
    is_valid = code in VALID_CONTROLS or code >= FIRST_PRINTABLE
    return reference[0] if is_valid else chr(STAND_INS + code).encode()


def _restore_characters(key: str) -> str:
    return "".join(
        chr(ord(letter) - STAND_INS) if STAND_INS <= ord(letter) < STAND_INS + FIRST_PRINTABLE else letter
        for letter in key
    )


class ObjectStore:
    """One bucket of an S3 server. Every method may raise :class:`StoreDown`. Threads may share a store."""

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
        """``endpoint`` is a URL such as ``http://127.0.0.1:9000``. No request is sent yet."""
        self.endpoint, self.bucket = endpoint, bucket
        pool = _ListingPool(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            maxsize=connections,
            retries=False,  # `_retried` is the one place that retries
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

    @_retried
    def ensure_bucket(self) -> None:
        """Create the bucket if it does not exist."""
        if not self._client.bucket_exists(bucket_name=self.bucket):
            self._client.make_bucket(bucket_name=self.bucket)

    @_retried
    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object atomically; it replaces an older object with that key."""
        self._client.put_object(
            bucket_name=self.bucket,
            object_name=key,
            data=io.BytesIO(data),
            length=len(data),
            content_type=content_type,
        )

    def put_if_unchanged(self, key: str, data: bytes, etag: str | None, content_type: str) -> bool:
        """Write an object if it still has this ETag, or if there still is none; ``False`` if it changed.

        A server that does not know conditional writes ignores the condition: what is written so must be
        guarded by other means as well.
        """
        headers = {"Content-Type": content_type}
        headers |= {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        return self._put_conditionally(key, data, headers)

    @_retried
    def _put_conditionally(self, key: str, data: bytes, headers: dict[str, str]) -> bool:
        try:
            # The client's own `put_object` passes no such headers on.
            self._client._put_object(self.bucket, key, data, dict(headers))
        except (S3Error, InvalidResponseError) as error:
            code = _error_code(error)
            if code in CHANGED_CODES | NOT_FOUND_CODES:  # not found: what should have this ETag was removed
                return False
            if code != "NotImplemented":
                raise
            self.put(key, data, headers["Content-Type"])
        return True

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Read an object, at most ``limit`` bytes.

        Raises :class:`NoSuchObject`, and :class:`ObjectTooLarge` as soon as more than ``limit`` bytes arrive.
        """
        return self.get_with_etag(key, limit)[0]

    @_retried
    def get_with_etag(self, key: str, limit: int | None = None) -> tuple[bytes, str | None]:
        """:meth:`get`, with the ETag of the bytes that were read; ``None`` from a server that sends none."""
        response = self._client.get_object(bucket_name=self.bucket, object_name=key)
        try:
            data: bytes = response.read() if limit is None else response.read(limit + 1)
        finally:
            response.close()  # else bytes left unread would be taken for the next response on this connection
            response.release_conn()
        etag = (response.headers.get("etag") or "").strip('"') or None
        if limit is not None and len(data) > limit:
            raise ObjectTooLarge(f"{self}: {key} has more than the {limit:,} bytes allowed", etag)
        return data, etag

    def stat(self, key: str) -> StoredObject | None:
        """The object's size and time, or ``None`` if there is no such object."""
        try:
            return self._stat(key)
        except NoSuchObject:
            return None

    @_retried
    def _stat(self, key: str) -> StoredObject:
        found = self._client.stat_object(bucket_name=self.bucket, object_name=key)
        return _to_stored_object(found, key)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """List the objects under a prefix in the order of their keys, only those after ``start_after``.

        A key that is not UTF-8 is listed with U+FFFD for what cannot be read; no request can name it.
        """
        unnameable = set[str]()
        while True:
            page = self._page(prefix, start_after)
            yield from (stored for stored in page if stored.key not in unnameable)
            if len(page) < PAGE_SIZE:
                return
            unnameable |= {stored.key for stored in page if REPLACEMENT in stored.key}
            # "After" an unnameable key is not where the store has it: that page would come again, or others
            # be left out.
            last = next((stored.key for stored in reversed(page) if REPLACEMENT not in stored.key), None)
            if last is None:
                raise StoreDown(
                    f"{self} lists {PAGE_SIZE:,} keys in a row that are not UTF-8, the first after "
                    f"{start_after!r}. No request can name them: remove them at the S3 server itself."
                )
            start_after = last

    @_retried
    def _page(self, prefix: str, start_after: str | None) -> "builtins.list[StoredObject]":
        # The client's own iterator ends early if a request fails and is retried, and the listing would look
        # complete. So each page is a listing of its own.
        entries = self._client.list_objects(
            bucket_name=self.bucket, prefix=prefix, recursive=True, start_after=start_after
        )
        return [_to_stored_object(entry, str(entry.object_name)) for entry in islice(entries, PAGE_SIZE)]

    @_retried
    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store. Raises :class:`NoSuchObject`."""
        self._client.copy_object(
            bucket_name=self.bucket,
            object_name=target,
            source=CopySource(bucket_name=self.bucket, object_name=source),
        )

    def move(self, source: str, target: str) -> None:
        """Copy an object, then remove the source.

        If the process dies in between, another call finishes the move. A missing source whose target exists
        was moved before, which is no error. Raises :class:`NoSuchObject` if neither exists.
        """
        try:
            self.copy(source, target)
        except NoSuchObject:
            if self.stat(target) is None:
                raise
        self.remove(source)

    @_retried
    def remove(self, key: str) -> None:
        """Remove an object. It is no error if there is none."""
        self._client.remove_object(bucket_name=self.bucket, object_name=key)

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove many objects, up to :data:`PAGE_SIZE` in one request. It is no error if some are not there.

        They are removed in any order: where one must be first, call this twice.
        """
        rest = iter(keys)
        while page := list(islice(rest, PAGE_SIZE)):
            plain = [key for key in page if PLAIN_KEY.fullmatch(key)]
            is_done = bool(plain) and self._remove_page(plain)
            for key in page:
                if not is_done or not PLAIN_KEY.fullmatch(key):
                    self.remove(key)

    @_retried
    def _remove_page(self, keys: "builtins.list[str]") -> bool:
        """Remove objects in one request; ``False`` if the server knows no such request."""
        try:
            refused = [*self._client.remove_objects(self.bucket, [DeleteObject(key) for key in keys])]
        except (S3Error, InvalidResponseError) as error:
            if _error_code(error) in UNSUPPORTED_CODES:
                return False
            raise
        for one in refused:
            if one.code not in NOT_FOUND_CODES:
                answer = urllib3.HTTPResponse(status=HTTPStatus.OK)
                raise S3Error(answer, one.code, one.message, one.name, None, None, self.bucket, one.name)
        return True

    @_retried
    def presigned_get(self, key: str, seconds: int) -> str:
        """A URL from which anybody can read the object for this many seconds."""
        return str(
            self._client.presigned_get_object(
                bucket_name=self.bucket, object_name=key, expires=timedelta(seconds=seconds)
            )
        )


def is_usable_key(key: str) -> bool:
    """Whether a request can name this key: a segment ``.`` or ``..`` would name another one.

    >>> is_usable_key("inbox/a.jpg"), is_usable_key("inbox/./a.jpg")
    (True, False)
    """
    return not {".", ".."} & set(key.split("/"))


def open_store(settings: "Settings") -> ObjectStore:
    """Open the deployment's object store. No request is sent yet."""
    return ObjectStore(
        settings.s3_endpoint,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.s3_bucket,
        settings.s3_region,
    )


def _to_stored_object(found: Any, key: str) -> StoredObject:
    return StoredObject(
        key=_restore_characters(key),
        size=int(found.size or 0),
        modified=found.last_modified,
        etag=str(found.etag or "").strip('"') or None,
    )
