"""Tasks of a project in pages that do not shift when a task changes between two of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from labeling.client import Client

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only form that Label Studio's filters take


def tasks_changed_since(
    client: Client, project: int, since: datetime, page_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Pages of tasks that changed at ``since`` or later, oldest change first, with their annotations.

    Numbered pages would shift when a task changes between two of them. So each page begins where the one
    before it ended, and tasks that changed at the same moment are read in the order of their ids."""
    operator = "greater_or_equal"
    while tasks := _page(client, project, page_size, "updated_at", _changed(operator, since)):
        yield tasks
        if len(tasks) < page_size:
            return
        since, operator, last = parse_time(tasks[-1]["updated_at"]), "greater", 0
        while ties := _page(client, project, page_size, "id", _changed("equal", since), _behind(last)):
            yield ties
            last = ties[-1]["id"]
            if len(ties) < page_size:
                break


def tasks_behind(
    client: Client, project: int, last: int, page_size: int, *, with_annotations: bool = True
) -> Iterator[list[dict[str, Any]]]:
    """Pages of the tasks with a higher id than ``last``, by id."""
    size = page_size
    while size == page_size:
        tasks = _page(client, project, page_size, "id", _behind(last), with_annotations=with_annotations)
        if tasks:
            yield tasks
            last = tasks[-1]["id"]
        size = len(tasks)


def tasks_by_id(
    client: Client, project: int, ids: Sequence[int], page_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Pages of the tasks with these ids, with their annotations; ids that the project lacks are left out."""
    for start in range(0, len(ids), page_size):
        some = list(ids[start : start + page_size])
        wanted = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number", "value": some}
        yield _page(client, project, page_size, "id", wanted)


def parse_time(value: str) -> datetime:
    """A time as Label Studio's API writes it, in UTC."""
    return datetime.fromisoformat(value.replace("Z", "+00:00"))


def _page(
    client: Client,
    project: int,
    size: int,
    order: str,
    *items: dict[str, Any],
    with_annotations: bool = True,
) -> list[dict[str, Any]]:
    query = {"filters": {"conjunction": "and", "items": items}, "ordering": [f"tasks:{order}"]}
    return client.with_retries(
        lambda: client.list_tasks(project, query, page_size=size, with_annotations=with_annotations)
    )


def _changed(operator: str, moment: datetime) -> dict[str, Any]:
    value = moment.strftime(TIME_FORMAT)
    return {"filter": "filter:tasks:updated_at", "operator": operator, "type": "Datetime", "value": value}


def _behind(task: int) -> dict[str, Any]:
    return {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": task}
