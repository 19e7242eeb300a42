import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.context import FlowContext, open_context
from flows.events import ACCEPTED, emit
from ingest import (
    Admission,
    DecoderPool,
    DeduplicationCounts,
    InboxWatch,
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

LINGERING_SECONDS = 3600.0  # of a run, after which it waits for no more: the next one has the newest code
SHARDS_AT_ONCE = 2  # each with `ingest.threads` connections to the store, and one to the ledger


@dataclass(frozen=True)
class Shared:
    """What the tasks of one run share: connections to store and ledger, and decoding processes.

    It cannot be hashed, so no task that has it is cached.
    """

    context: FlowContext
    decoders: DecoderPool


@flow(
    name="ingest",
    retries=2,
    retry_delay_seconds=20,
    timeout_seconds=6 * 3600,
    task_runner=ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE),  # type: ignore[arg-type]
)
def ingest() -> None:
    """Drain the inbox into frames and quarantine; uploads that arrive meanwhile, or soon after, too."""
    params, began = load_params("ingest", IngestParams), time.monotonic()
    with open_context() as context, DecoderPool(params) as decoders:
        shared: Any = quote(Shared(context, decoders))  # Prefect must not look into it
        watch = InboxWatch(context.store)
        watch.look()  # what is there already is drained below

        def receive_admitted(keys: Sequence[str]) -> ReceptionCounts:
            futures = [
                receive_shard.submit(shared, number, part, return_state=False)
                for number, part in enumerate(split_into_shards(keys, params.shard_size))
            ]
            return sum((future.result() for future in futures), ReceptionCounts())

        def wait_for_more() -> bool:
            return time.monotonic() - began < LINGERING_SECONDS and watch.wait(params.linger_seconds)

        for done in drain_inbox(
            lambda before: admit(shared, before),
            receive_admitted,
            lambda: deduplicate_received(shared),
            wait_for_more,
        ):
            get_run_logger().info("%d uploads: %s, %s", done.uploads, done.received, done.deduplicated)
            if done.deduplicated.accepted:
                emit(ACCEPTED, count=done.deduplicated.accepted)


@task(retries=3, retry_delay_seconds=[2, 10, 30], cache_policy=NO_CACHE)
def admit(shared: Shared, before: Admission | None) -> Admission:
    """The uploads that may be taken in, after those of the admission before."""
    context, params = shared.context, load_params("ingest", IngestParams)
    admission = admit_uploads(context.store, context.ledger, params, before)
    for bin_id, count in sorted(admission.waiting.items()):
        get_run_logger().warning("%s: %d uploads wait over its quota", bin_id, count)
    for key in admission.unusable:
        get_run_logger().warning("no request can name %r: remove it at the S3 server itself", key)
    return admission


@task(
    task_run_name="receive shard {number}",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    cache_policy=NO_CACHE,
)
def receive_shard(shared: Shared, number: int, keys: list[str]) -> ReceptionCounts:
    """Validate one shard of uploads and enter them in the ledger."""
    context, params = shared.context, load_params("ingest", IngestParams)
    return receive(context.store, context.ledger, keys, context.taxonomy, params, decoders=shared.decoders)


@task(retries=3, retry_delay_seconds=[2, 10, 30], cache_policy=NO_CACHE)
def deduplicate_received(shared: Shared) -> DeduplicationCounts:
    """Tell new frames from re-encodes, one after the other."""
    context = shared.context
    return deduplicate(context.store, context.ledger, load_params("ingest", IngestParams))


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def sweep_incomplete() -> int:
    """Quarantine uploads that were never completed; how many objects that were."""
    with open_context() as context:
        params = load_params("ingest", IngestParams)
        return sweep_inbox(context.store, context.ledger, params, datetime.now(UTC))
