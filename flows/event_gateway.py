"""The event gateway: hears of uploads and annotations, and rings for them as Prefect events. It carries no data and decides nothing.

``POST /s3`` takes S3's event notifications, ``POST /label-studio`` Label Studio's webhooks. A store that
cannot notify is watched instead: the inbox is listed every few seconds. Rings are debounced: a thousand
uploads are one or two events. ``python -m flows.event_gateway`` runs it.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote_plus

import click
import uvicorn
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Event, Resource
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flows.events import ANSWERED, INBOX, RESOURCE
from ingest import waiting
from trashnet.errors import UserError
from trashnet.settings import SECRET_HEADER, WEBHOOK_PATH, Settings, load_settings
from trashnet.store import open_store

LARGEST_BODY = 1 << 20  # bytes; a store sends a few hundred for each upload
QUIET, LONGEST = (
    2.0,
    20.0,
)  # seconds: rings when nothing came for so long, or when the first has waited for so long
WATCH = 3.0  # seconds between two looks into the inbox
AGAIN = 5.0  # seconds until a ring is tried again that Prefect did not take

log = logging.getLogger("gateway")


class Debouncer:
    """Rings for each event once it has been quiet for a while: ``emit(event, how many were heard)``, again and again until it succeeds."""

    def __init__(
        self, emit: Callable[[str, int], Awaitable[None]], quiet: float = QUIET, longest: float = LONGEST
    ) -> None:
        self._emit, self._quiet, self._longest = emit, quiet, longest
        self._heard: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._ringing: dict[str, asyncio.Task[None]] = {}

    def notify(self, event: str, count: int = 1) -> None:
        """Somebody is at the door; returns at once."""
        self._heard[event] = self._heard.get(event, 0) + count
        self._last[event] = asyncio.get_running_loop().time()
        if event not in self._ringing:
            self._ringing[event] = asyncio.create_task(self._ring(event))

    async def _ring(self, event: str) -> None:
        clock = asyncio.get_running_loop().time
        first = clock()
        while (now := clock()) < (due := min(self._last[event] + self._quiet, first + self._longest)):
            await asyncio.sleep(due - now)
        del self._ringing[event]
        count = self._heard.pop(event)
        try:
            await self._emit(event, count)
        except Exception as error:  # whatever keeps Prefect from taking it: the ring is kept
            log.warning("%s not emitted, trying again in %.0f s: %s", event, AGAIN, error)
            await asyncio.sleep(AGAIN)
            self.notify(event, count)

    async def close(self) -> None:
        """Stop; what has not rung is left to the sweep."""
        for ringing in list(self._ringing.values()):
            ringing.cancel()
            with suppress(asyncio.CancelledError):
                await ringing


def uploads_in(body: bytes) -> int:
    """How many complete uploads (sidecars in the inbox) a store's notification speaks of. Raises ``ValueError`` if it is none.

    AWS S3, MinIO, RustFS, SeaweedFS and Ceph send ``Records[].s3.object.key``, URL-encoded; Ceph writes event
    names without ``s3:``. Test notifications and empty bodies, which stores send to see whether somebody is
    there, speak of none.
    """
    if not body.strip():
        return 0
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    records = message.get("Records", [])
    if not isinstance(records, list):
        raise ValueError("`Records` is not a list")
    count = 0
    for record in records:
        try:
            name, key = str(record["eventName"]), unquote_plus(str(record["s3"]["object"]["key"]))
        except (KeyError, TypeError):
            raise ValueError("a record without eventName and s3.object.key") from None
        created = name.removeprefix("s3:").startswith("ObjectCreated")
        count += created and key.startswith("inbox/") and key.endswith(".json")
    return count


def make_app(settings: Settings, emit: Callable[[str, int], Awaitable[None]] | None = None) -> Starlette:
    """The event gateway as an ASGI app; ``emit`` takes an event and how often it was heard, Prefect's events unless given."""

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        app.state.debouncer = Debouncer(emit or emit_to_prefect)
        watcher = None if settings.s3_notifies else asyncio.create_task(watch(settings, app.state.debouncer))
        yield
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await app.state.debouncer.close()

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"watching": not settings.s3_notifies})

    async def s3(request: Request) -> JSONResponse:
        body, refusal = await _authentic_body(request, settings)
        if refusal is not None:
            return refusal
        try:
            count = uploads_in(body)
        except ValueError as error:
            return JSONResponse({"error": f"not a notification: {error}"}, status_code=400)
        if count:
            request.app.state.debouncer.notify(INBOX, count)
        return JSONResponse({"uploads": count}, status_code=202)

    async def label_studio(request: Request) -> JSONResponse:
        _, refusal = await _authentic_body(request, settings)
        if refusal is not None:
            return refusal
        request.app.state.debouncer.notify(ANSWERED)
        return JSONResponse({}, status_code=202)

    routes = [
        Route("/health", health),
        Route("/s3", s3, methods=["POST"]),
        Route(WEBHOOK_PATH, label_studio, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=running)


async def _authentic_body(request: Request, settings: Settings) -> tuple[bytes, JSONResponse | None]:
    """The body of a request that knows the secret, or the refusal; of a stranger's request nothing is read."""
    bearer = request.headers.get("authorization", "")
    said = request.headers.get(SECRET_HEADER) or bearer.removeprefix("Bearer ").strip()
    if not secrets.compare_digest(said.encode(), settings.gateway_secret.get_secret_value().encode()):
        return b"", JSONResponse(
            {"error": f"send the shared secret as {SECRET_HEADER} or as a bearer token"}, status_code=401
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return b"", JSONResponse({"error": f"more than {LARGEST_BODY} bytes"}, status_code=413)
    return bytes(body), None


async def watch(settings: Settings, debouncer: Debouncer) -> None:
    """Press the bell whenever uploads lie in the inbox that did not lie there at the last look; a store that is down is asked on."""
    store, seen = open_store(settings), set[str]()
    while True:
        try:
            keys = set(await asyncio.to_thread(waiting, store))
            if new := len(keys - seen):
                debouncer.notify(INBOX, new)
            seen = keys
        except UserError as error:
            log.warning("the inbox cannot be watched: %s", error)
        await asyncio.sleep(WATCH)


async def emit_to_prefect(event: str, count: int) -> None:
    """One event for all that was heard."""
    async with get_events_client(checkpoint_every=1) as client:
        await client.emit(Event(event=event, resource=Resource(RESOURCE), payload={"count": count}))
    log.info("rang %s for %d", event, count)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4300, show_default=True)
def main(host: str, port: int) -> None:
    """Serve the event gateway of the deployment whose settings are in the environment."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(make_app(load_settings()), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main()
