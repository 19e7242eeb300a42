from datetime import UTC, datetime

from prefect import flow, get_run_logger, task

from flows.context import open_context
from flows.events import ACCEPTED, emit
from ingest import (
    DeduplicationCounts,
    IngestParams,
    ReceptionCounts,
    deduplicate,
    receive,
    shards,
    sweep_inbox,
    waiting,
)
from trashnet.params import load_params


@flow(name="ingest", retries=2, retry_delay_seconds=20, timeout_seconds=6 * 3600)
def ingest() -> None:
    """Drain the inbox into frames and quarantine; uploads that arrive meanwhile too."""
    logger = get_run_logger()
    while True:
        uploads, parts = list_inbox()
        futures = [receive_shard.submit(number, part) for number, part in enumerate(parts)]
        received = sum((future.result() for future in futures), ReceptionCounts())
        deduplicated = deduplicate_received()
        logger.info("%d uploads: %s, %s", uploads, received, deduplicated)
        if deduplicated.accepted:
            emit(ACCEPTED, count=deduplicated.accepted)
        if uploads == received.left:  # nothing but sidecars that wait for their pictures
            return


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def list_inbox() -> tuple[int, list[list[str]]]:
    """How many complete uploads there are, and their sidecars' keys in shards."""
    with open_context() as context:
        keys = waiting(context.store)
        return len(keys), shards(keys, load_params("ingest", IngestParams).shard_size)


@task(task_run_name="receive shard {number}", retries=3, retry_delay_seconds=[2, 10, 30])
def receive_shard(number: int, keys: list[str]) -> ReceptionCounts:
    """Validate one shard of uploads and enter them in the ledger."""
    with open_context() as context:
        params = load_params("ingest", IngestParams)
        return receive(context.store, context.ledger, keys, context.taxonomy, params)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def deduplicate_received() -> DeduplicationCounts:
    """Tell new frames from re-encodes, one after the other."""
    with open_context() as context:
        return deduplicate(context.store, context.ledger, load_params("ingest", IngestParams))


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def sweep_incomplete() -> int:
    """Quarantine uploads that were never completed; how many objects that were."""
    with open_context() as context:
        params = load_params("ingest", IngestParams)
        return sweep_inbox(context.store, context.ledger, params, datetime.now(UTC))
