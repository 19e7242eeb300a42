"""The event gateway: notifications of uploads and annotations become Prefect events.

``POST /s3`` takes S3's event notifications, ``POST /label-studio`` Label Studio's webhooks; ``GET /metrics``
is for Prometheus. A store that cannot notify is watched instead: a stretch of the inbox is listed every
second. Notifications are debounced: a thousand uploads are one or two events. ``python -m
flows.event_gateway`` runs it."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote_plus

import click
import httpx
import uvicorn
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Event, Resource
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows.active_runs import (
    SWEEP,
    WORKER_TIMEOUT,
    end_orphaned_subflows,
    end_runs,
    read_active_runs,
    start_run,
)
from flows.debouncer import Debouncer, Emit, NotYetError
from flows.events import ANSWERED, INBOX, RESOURCE, Announcements, connect_to_prefect
from flows.metrics import Metrics
from ingest import LOOK_SECONDS, InboxWatch, has_uploads
from trashnet.errors import UserError
from trashnet.logs import configure_logs, log_format
from trashnet.settings import SECRET_HEADER, WEBHOOK_PATH, Settings, load_settings
from trashnet.store import ObjectStore, open_store

MAX_BODY_BYTES = 1 << 20  # a store sends a few hundred for each upload
RUNS_SECONDS = 30.0  # between two looks at the runs that are under way

log = logging.getLogger("gateway")


def uploads_in(body: bytes) -> int:
    """How many complete uploads (sidecars in the inbox) a store's notification names.

    AWS S3, MinIO, RustFS, SeaweedFS and Ceph send ``Records[].s3.object.key``, URL-encoded; Ceph writes event
    names without ``s3:``. Test notifications and empty bodies, which stores send to see whether somebody is
    there, name none. Raises ``ValueError`` for a body that is no notification.
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


def make_app(settings: Settings, emit: Emit | None = None) -> Starlette:
    """The event gateway as an ASGI app; ``emit`` sends an event to Prefect unless given."""

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        app.state.metrics = Metrics(settings)
        app.state.debouncer = Debouncer(
            app.state.metrics.counted(emit or PrefectEmitter(open_store(settings)))
        )
        loops = [] if settings.s3_notifies else [watch(settings, app.state.debouncer)]
        if emit is None:
            loops.append(watch_runs())
        tasks = [asyncio.create_task(loop) for loop in loops]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await app.state.debouncer.close()

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"watching": not settings.s3_notifies})

    async def metrics(request: Request) -> Response:
        return Response(await request.app.state.metrics.expose(), media_type=CONTENT_TYPE_LATEST)

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
        Route("/metrics", metrics),
        Route("/s3", s3, methods=["POST"]),
        Route(WEBHOOK_PATH, label_studio, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=running)


async def _authentic_body(request: Request, settings: Settings) -> tuple[bytes, JSONResponse | None]:
    """The body of a request, or the refusal; the body of an unauthenticated request is not read."""
    bearer = request.headers.get("authorization", "")
    secret = request.headers.get(SECRET_HEADER) or bearer.removeprefix("Bearer ").strip()
    if not secrets.compare_digest(secret.encode(), settings.gateway_secret.get_secret_value().encode()):
        return b"", JSONResponse(
            {"error": f"send the shared secret as {SECRET_HEADER} or as a bearer token"}, status_code=401
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return b"", JSONResponse({"error": f"more than {MAX_BODY_BYTES} bytes"}, status_code=413)
    return bytes(body), None


async def watch(settings: Settings, debouncer: Debouncer) -> None:
    """Notify of uploads that no listing of the inbox had before; a store that is down is retried."""
    inbox = InboxWatch(open_store(settings))
    while True:
        try:
            if new := await asyncio.to_thread(inbox.look):
                debouncer.notify(INBOX, new)
        except UserError as error:
            log.warning("the inbox cannot be watched: %s", error)
        await asyncio.sleep(LOOK_SECONDS)


async def watch_runs() -> None:
    """End runs whose worker is gone, and start what they left.

    This process does it, because a sweep that nobody runs any more would keep the next sweep from it. While
    Prefect is down workers cannot send heartbeats, so none counts as gone until Prefect has answered for the
    whole timeout.
    """
    answering_since = None
    while True:
        now = time.monotonic()
        try:
            answering_since = now if answering_since is None else answering_since
            is_sure = now - answering_since >= WORKER_TIMEOUT.total_seconds()
            await asyncio.to_thread(end_abandoned_runs if is_sure else _read_runs)
        except httpx.HTTPError as error:
            answering_since = None
            log.warning("Prefect does not say what runs: %s", error)
        await asyncio.sleep(RUNS_SECONDS)


def end_abandoned_runs() -> list[str]:
    """End the runs that nobody runs any more, and start a sweep if there were any; their names.

    Raises :class:`httpx.HTTPError` if Prefect does not answer.
    """
    with connect_to_prefect() as api:
        runs, now = read_active_runs(api)
        abandoned = [run for run in runs if run.is_abandoned(now)]
        minutes = WORKER_TIMEOUT.total_seconds() / 60
        ended = end_runs(api, abandoned, f"its worker has sent no heartbeat for {minutes:.0f} minutes")
        for run in [*ended, *end_orphaned_subflows(api)]:
            log.warning("%s: nobody runs it any more, it is marked as crashed", run)
        if ended:
            start_run(api, SWEEP)
    return [str(run) for run in ended]


def _read_runs() -> None:
    with connect_to_prefect() as api:
        read_active_runs(api)


class PrefectEmitter:
    """Emits one event for all notifications, unless their cause is gone or a run that will see it is due."""

    def __init__(self, store: ObjectStore) -> None:
        """Nothing was emitted yet. In ``store`` is the inbox."""
        self._announcements, self._store = Announcements(), store

    async def __call__(self, event: str, count: int) -> None:
        """Emit the event. Raises :class:`NotYetError` while it cannot be known whether that is needed."""
        verdict = await asyncio.to_thread(self._announcements.judge, event)
        if verdict == "covered":
            log.info("%s for %d notifications not emitted: a run that is due will see them", event, count)
            return
        if verdict == "coming":
            raise NotYetError("a run that may see their cause is to come, or has not ended")
        if event == INBOX and not await asyncio.to_thread(self._has_uploads):
            log.info("%s for %d notifications not emitted: a run has taken the uploads in", event, count)
            return
        async with get_events_client(checkpoint_every=1) as client:
            await client.emit(Event(event=event, resource=Resource(RESOURCE), payload={"count": count}))
        self._announcements.note(event)
        log.info("emitted %s for %d notifications", event, count)

    def _has_uploads(self) -> bool:
        try:
            return has_uploads(self._store)
        except UserError as error:  # a run too many is better than one too few
            log.warning("emitting %s without a look at the inbox: %s", INBOX, error)
            return True


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4300, show_default=True)
def main(host: str, port: int) -> None:
    """Serve the event gateway of the deployment whose settings are in the environment."""
    try:
        configure_logs(logging.INFO, text="%(asctime)s %(message)s")
        app = make_app(load_settings())
    except UserError as error:
        raise click.ClickException(str(error)) from None
    # Uvicorn's own configuration writes text.
    logs = uvicorn.config.LOGGING_CONFIG if log_format() == "text" else None
    uvicorn.run(app, host=host, port=port, log_level="warning", log_config=logs)


if __name__ == "__main__":
    main()
