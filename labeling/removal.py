"""Tasks of frames that must be forgotten are deleted, with their annotations."""

from collections.abc import Sequence
from functools import partial

from label_studio_sdk.core.api_error import ApiError

from labeling.client import Client
from labeling.project import Project
from labeling.tasks import tasks_of

NOT_FOUND = 404


def delete_tasks(client: Client, project: Project, sha256s: Sequence[str]) -> int:
    """Delete every task of these frames, also one that the ledger does not know; how many there were.

    A task that is gone already is no error. Raises what :meth:`labeling.client.Client.with_retries` raises.
    """
    deleted = 0
    # One look-up finds one task of each frame, and somebody may have made two.
    while found := client.with_retries(lambda: tasks_of(client, project, sha256s)):
        for task_id in found.values():
            client.with_retries(partial(_delete, client, task_id))
        deleted += len(found)
    return deleted


def _delete(client: Client, task_id: int) -> None:
    try:
        client.tasks.delete(id=str(task_id))
    except ApiError as error:
        if error.status_code != NOT_FOUND:
            raise
