"""The flywheel's project in Label Studio: page, storage, webhook and tabs, created or brought up to date."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any
from xml.etree import ElementTree as Xml

from labeling.client import Client
from labeling.interface import INSTRUCTIONS, label_config
from labeling.params import LabelingParams
from labeling.task_pages import tasks_behind
from trashnet.errors import UserError
from trashnet.settings import SECRET_HEADER, WEBHOOK_PATH, Settings
from trashnet.store import open_store
from trashnet.taxonomy import Taxonomy

WEBHOOK_ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
)  # skipping creates one as well
STORAGE_TITLE = "TrashNet frames"

# What is not the page itself. Nobody sees the task that they skipped again, others do.
PROJECT_OPTIONS: Mapping[str, Any] = {
    "expert_instruction": INSTRUCTIONS,
    "show_instruction": True,
    "show_collab_predictions": True,  # an annotator starts from the pre-labels
    "show_skip_button": True,
    "skip_queue": "REQUEUE_FOR_OTHERS",
    "enable_empty_annotation": False,  # an empty bin is "No waste here", not an empty answer
    "maximum_annotations": 1,  # a task that two should answer is opened again when the first has
    "sampling": "Sequential sampling",  # tasks are imported most valuable first
}
HIDDEN_COLUMNS = (
    "inner_id",
    "total_predictions",
    "predictions_score",
    "predictions_model_versions",
    "predictions_results",
    "annotations_results",
    "annotations_ids",
    "file_upload",
    "storage_filename",
    "updated_by",
    "avg_lead_time",
    "draft_exists",
    "data.sha256",
    "data.prelabelled",
    "created_at",
    "updated_at",
)
OLD_FEEDBACK_TAB, OLD_FEEDBACK_KEY = "To mend", "mend"  # their names before version 0.2
TABS: Mapping[str, list[dict[str, Any]]] = {
    "To label": [
        {"filter": "filter:tasks:completed_at", "operator": "empty", "type": "Datetime", "value": True}
    ],
    "Needs fixing": [
        {"filter": "filter:tasks:data.feedback", "operator": "empty", "type": "String", "value": False}
    ],
    "All": [],
}


@dataclass(frozen=True)
class Project:
    """The project: its id and address in Label Studio, and the class names its page offers.

    ``installation`` tells the database that gave the project and its annotations their ids from any other: it
    is the moment, to the microsecond, at which the project was created. It survives restarts, backups and
    changes of the project, and nobody can edit it.
    """

    id: int
    title: str
    url: str
    names: frozenset[str]
    installation: str


def ensure_project(
    client: Client,
    settings: Settings,
    taxonomy: Taxonomy,
    params: LabelingParams,
    counts: Mapping[str, int] | None = None,
) -> Project:
    """Find the project by its title or create it, and bring its page, tabs, storage and webhook up to date.

    ``counts``, boxes per class name in the dataset, decide which classes get a key. Label Studio only
    presigns frames: its storage is never synced. Raises :class:`UserError` if Label Studio refuses, for
    example because annotations use a class that the taxonomy has lost.
    """
    open_store(settings).ensure_bucket()  # Label Studio checks that it exists
    config = label_config(taxonomy, params.hotkeys, counts)
    title = settings.label_studio_project
    found = client.with_retries(partial(_find_or_create, client, title, config))
    before = client.with_retries(lambda: client.projects.get(found))
    wanted: dict[str, Any] = {**PROJECT_OPTIONS, "title": title, "label_config": config}
    _rename_feedback(client, found, before.label_config)  # before the page, which shows the new key
    changes: dict[str, Any] = {
        name: value for name, value in wanted.items() if not _same(name, getattr(before, name), value)
    }
    if changes:
        client.with_retries(lambda: client.projects.update(found, **changes))
    client.with_retries(lambda: _ensure_storage(client, found, settings, params))
    client.with_retries(lambda: _ensure_webhook(client, found, settings))
    client.with_retries(lambda: _ensure_tabs(client, found))
    return Project(
        found, title, f"{client.url}/projects/{found}", frozenset(taxonomy.names), _installation(before)
    )


def _installation(project: Any) -> str:
    if project.created_at is None:
        raise UserError(
            f"project {project.id} of Label Studio does not say when it was created, so that its annotations "
            "cannot be told from those of another installation; is its API another version's?"
        )
    return str(project.created_at.astimezone(UTC).isoformat())


def _find_or_create(client: Client, title: str, config: str) -> int:
    """The project of exactly that title, the oldest should two have been made at once."""
    projects: Iterable[Any] = client.projects.list(title=title, include="id,title")
    found: list[int] = [project.id for project in projects if project.title == title]
    return min(found) if found else int(client.projects.create(title=title, label_config=config).id or 0)


def _same(name: str, before: Any, wanted: Any) -> bool:
    if name == "label_config" and before:
        return Xml.canonicalize(before, strip_text=True) == Xml.canonicalize(wanted, strip_text=True)
    return bool(before == wanted)


def _ensure_storage(client: Client, project: int, settings: Settings, params: LabelingParams) -> None:
    """The bucket as a storage whose addresses Label Studio presigns; its keys are written each time.

    The store's address is Label Studio's own variable ``S3_ENDPOINT``: one given here would have to pass its
    guard against private ones.
    """
    storages = client.import_storage.s3
    wanted: dict[str, Any] = {
        "title": STORAGE_TITLE,
        "bucket": settings.s3_bucket,
        "region_name": settings.s3_region,
        "aws_access_key_id": settings.s3_access_key,
        "aws_secret_access_key": settings.s3_secret_key.get_secret_value(),
        "presign": True,
        "presign_ttl": params.presign_minutes,
        "use_blob_urls": True,
    }
    mine = [storage.id for storage in storages.list(project=project) if storage.bucket == settings.s3_bucket]
    if mine:
        storages.update(id=mine[0], project=project, **wanted)
    else:
        storages.create(project=project, **wanted)


def _ensure_webhook(client: Client, project: int, settings: Settings) -> None:
    """One webhook that notifies the event gateway; it carries no labels, since they are collected."""
    wanted: dict[str, Any] = {
        "url": settings.gateway_url.rstrip("/") + WEBHOOK_PATH,
        "headers": {SECRET_HEADER: settings.gateway_secret.get_secret_value()},
        "actions": sorted(WEBHOOK_ACTIONS),
        "send_payload": False,
        "send_for_all_actions": False,
        "is_active": True,
    }
    hooks: list[Any] = [
        hook for hook in client.webhooks.list(project=project) if SECRET_HEADER in (hook.headers or {})
    ]
    for surplus in hooks[1:]:
        client.webhooks.delete(id=surplus.id)
    if not hooks:
        client.webhooks.create(project=project, **wanted)
    elif {name: getattr(hooks[0], name) for name in wanted} | {"actions": sorted(hooks[0].actions)} != wanted:
        client.webhooks.update(id=hooks[0].id, **wanted)


def _ensure_tabs(client: Client, project: int) -> None:
    """Tabs of the data manager, created once: people may change them afterwards."""
    hidden = [f"tasks:{name}" for name in HIDDEN_COLUMNS]
    views = {
        view.data["title"]: view
        for view in client.views.list(project=project)
        if isinstance(view.data, dict) and "title" in view.data
    }
    for title, items in TABS.items():
        if title in views:
            continue
        data: Any = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "filters": {"conjunction": "and", "items": items},
            "ordering": ["-tasks:data.value"],
            "columnsDisplayType": {"tasks:data.value": "Number", "tasks:data.image": "Image"},
            "hiddenColumns": {"explore": hidden, "labeling": hidden},
        }
        client.views.create(project=project, data=data)
    if OLD_FEEDBACK_TAB in views:
        client.views.delete(id=str(views[OLD_FEEDBACK_TAB].id))


def _rename_feedback(client: Client, project: int, label_config: str | None) -> None:
    """Give the tasks of a project whose page has no feedback yet that key; its older name was ``mend``."""
    if f'"${OLD_FEEDBACK_KEY}"' not in (label_config or ""):
        return
    for page in tasks_behind(client, project, 0, page_size=100):
        for task in page:
            data = task["data"]
            if "feedback" not in data:
                renamed = {key: value for key, value in data.items() if key != OLD_FEEDBACK_KEY}
                body: Any = {"data": renamed | {"feedback": data.get(OLD_FEEDBACK_KEY, "")}}
                options: Any = {"additional_body_parameters": body}
                client.with_retries(partial(client.tasks.update, str(task["id"]), request_options=options))
