from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import flow, get_run_logger, task

from flows.context import open_context
from flows.events import ACCEPTED, emit
from ingest import (
    DeduplicationCounts,
    IngestParams,
    ReceptionCounts,
    admit_uploads,
    deduplicate,
    drain_inbox,
    receive,
    split_into_shards,
    sweep_inbox,
)
from trashnet.params import load_params


@flow(name="ingest", retries=2, retry_delay_seconds=20, timeout_seconds=6 * 3600)
def ingest() -> None:
    """Drain the inbox into frames and quarantine; uploads that arrive meanwhile too."""
    for done in drain_inbox(list_shards, receive_shards, deduplicate_received):
        get_run_logger().info("%d uploads: %s, %s", done.uploads, done.received, done.deduplicated)
        if done.deduplicated.accepted:
            emit(ACCEPTED, count=done.deduplicated.accepted)


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def list_shards() -> list[list[str]]:
    """The keys of the sidecars that may be taken in, in shards."""
    with open_context() as context:
        params = load_params("ingest", IngestParams)
        admission = admit_uploads(context.store, context.ledger, params)
        for bin_id, count in sorted(admission.waiting.items()):
            get_run_logger().warning("%s: %d uploads wait over its quota", bin_id, count)
        return split_into_shards(admission.keys, params.shard_size)


def receive_shards(parts: Sequence[list[str]]) -> ReceptionCounts:
    """Receive all shards side by side, each as a task."""
    futures = [receive_shard.submit(number, part) for number, part in enumerate(parts)]
    return sum((future.result() for future in futures), ReceptionCounts())


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
