from datetime import UTC, datetime

from prefect import flow, get_run_logger, task

import dataset
import ingest
from flows.context import open_context
from trashnet import retention
from trashnet.ledger import Removal
from trashnet.params import load_params
from trashnet.retention import RetentionParams


@flow(name="retain", retries=1, retry_delay_seconds=600, timeout_seconds=6 * 3600)
def retain() -> list[str]:
    """Remove what has been kept for as long as ``retention`` of params.yaml says; what that was, in words.

    The DVC cache is that of the machine that runs this."""
    removed = [*expire_quarantine(), *thin_out_transitions(), *clean_cache()]
    for line in (lines := retention.describe_removals(removed)):
        get_run_logger().info("removed %s", line)
    return lines


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def expire_quarantine() -> list[Removal]:
    """Objects of refused uploads and duplicates."""
    with open_context() as context:
        return ingest.remove_expired(context.store, context.ledger, _params(), datetime.now(UTC))


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def thin_out_transitions() -> list[Removal]:
    """What explains nothing of the histories of frames that settled long ago."""
    with open_context() as context:
        return retention.thin_out_transitions(context.ledger, _params(), datetime.now(UTC))


@task(retries=3, retry_delay_seconds=[10, 30, 120])
def clean_cache() -> list[Removal]:
    """Files of this machine's DVC cache that nothing needs here."""
    with open_context() as context:
        return dataset.clean_cache(context.clone, context.store, context.ledger, _params(), datetime.now(UTC))


def _params() -> RetentionParams:
    return load_params("retention", RetentionParams)
