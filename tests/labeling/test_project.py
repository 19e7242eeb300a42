"""The project is created once, and corrected where it differs from the settings."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from labeling import Client, LabelingParams, ensure_project, label_config
from labeling.project import SECRET_HEADER
from tests.labeling.conftest import Desk, region
from trashnet.errors import UserError
from trashnet.settings import Settings
from trashnet.taxonomy import Taxonomy, WasteClass


def parts(client: Client, project: int) -> dict[str, Any]:
    """The ids of everything that a second call could create twice."""
    return {
        "storages": [
            (s.id, s.bucket, s.presign, s.last_sync) for s in client.import_storage.s3.list(project=project)
        ],
        "webhooks": [(w.id, w.url) for w in client.webhooks.list(project=project)],
        "tabs": [view.id for view in client.views.list(project=project)],
    }


def test_ensuring_twice_makes_one_of_everything(
    client: Client, settings: Settings, taxonomy: Taxonomy, params: LabelingParams
) -> None:
    """There is one project, one storage that was never synced, one webhook, and each tab once."""
    first = ensure_project(client, settings, taxonomy, params)
    made = parts(client, first.id)
    assert ensure_project(client, settings, taxonomy, params) == first
    assert parts(client, first.id) == made
    assert [p.title for p in client.projects.list(title=settings.label_studio_project)] == [
        settings.label_studio_project
    ]
    assert [(bucket, presign, synced) for _, bucket, presign, synced in made["storages"]] == [
        (settings.s3_bucket, True, None)
    ]
    assert [url for _, url in made["webhooks"]] == ["http://127.0.0.1:9/label-studio"]
    assert len(made["tabs"]) == 3


def test_a_project_of_a_longer_title_is_another(
    client: Client, settings: Settings, taxonomy: Taxonomy, params: LabelingParams
) -> None:
    """Label Studio's own search would find it too."""
    longer = settings.model_copy(update={"label_studio_project": settings.label_studio_project + " old"})
    assert (
        ensure_project(client, longer, taxonomy, params).id
        != ensure_project(client, settings, taxonomy, params).id
    )


def test_the_webhook_announces_annotations_and_carries_only_the_secret(desk: Desk) -> None:
    """It sends no payload: the flow reads the annotations itself."""
    (hook,) = desk.client.webhooks.list(project=desk.project.id)
    assert hook.headers == {SECRET_HEADER: "a-secret-of-the-tests"}
    assert hook.send_payload is False
    assert set(hook.actions or []) == {
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "TASKS_DELETED",
    }


def test_a_new_address_and_secret_correct_the_webhook(desk: Desk) -> None:
    """The event gateway may move; the old webhook does not stay behind, nor does one made twice."""
    hooks = desk.client.webhooks
    hooks.create(
        url="http://127.0.0.1:7/label-studio", project=desk.project.id, headers={SECRET_HEADER: "older"}
    )
    hooks.create(url="http://127.0.0.1:8/somebody-elses", project=desk.project.id)
    moved = desk.settings.model_copy(
        update={"gateway_url": "http://127.0.0.1:11", "gateway_secret": SecretStr("another-long-secret")}
    )
    ensure_project(desk.client, moved, desk.taxonomy, desk.params)
    found = sorted((hook.url, hook.headers) for hook in hooks.list(project=desk.project.id))
    assert found == [
        ("http://127.0.0.1:11/label-studio", {SECRET_HEADER: "another-long-secret"}),
        ("http://127.0.0.1:8/somebody-elses", {}),
    ]


def test_a_new_class_of_the_taxonomy_is_a_new_label_on_the_page(desk: Desk) -> None:
    """Existing tasks stay."""
    (sha,) = desk.draw(1)
    desk.ask([sha])
    grown = Taxonomy(
        (*desk.taxonomy.classes, WasteClass(58, "Vape", "Vape", "special")), desk.taxonomy.streams
    )
    project = ensure_project(desk.client, desk.settings, grown, desk.params)
    assert project.id == desk.project.id
    assert "Vape" in project.names
    assert 'value="Vape"' in (desk.client.projects.get(project.id).label_config or "")
    assert [task["data"]["sha256"] for task in desk.tasks()] == [sha]


def test_settings_that_somebody_changed_by_hand_come_back(desk: Desk) -> None:
    """Somebody may switch pre-labels off and forget it."""
    desk.client.projects.update(desk.project.id, show_collab_predictions=False, maximum_annotations=3)
    ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params)
    now = desk.client.projects.get(desk.project.id)
    assert (now.show_collab_predictions, now.maximum_annotations) == (True, 1)


def test_a_page_that_has_not_changed_is_not_written_again(desk: Desk) -> None:
    """Label Studio gives the XML back in a form of its own."""
    before = desk.client.projects.get(desk.project.id).label_config
    assert before is not None
    assert 'value="Battery"' in before
    ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params)
    assert desk.client.projects.get(desk.project.id).label_config == before
    assert before != label_config(desk.taxonomy, 0)


def test_keys_of_the_store_that_are_wrong_are_refused_in_plain_words(desk: Desk) -> None:
    """The store refuses them before Label Studio is configured."""
    wrong = desk.settings.model_copy(update={"s3_secret_key": SecretStr("wrong")})
    with pytest.raises(UserError, match="TRASHNET_S3_ENDPOINT, the keys"):
        ensure_project(desk.client, wrong, desk.taxonomy, desk.params)


def change_task(client: Client, task: int, **changes: Any) -> None:
    """Change fields of a task, as Label Studio's own page does."""
    client.tasks.update(str(task), request_options={"additional_body_parameters": changes})


def tabs(client: Client, project: int) -> dict[str, Any]:
    """The data manager's tabs by title."""
    views: list[Any] = client.views.list(project=project)
    return {view.data["title"]: view for view in views}


def test_a_project_of_version_0_1_gets_the_new_names_and_keeps_its_annotations(desk: Desk) -> None:
    """Tasks get ``feedback`` for ``mend``, the tab "To mend" its new title; answers and pre-labels stay."""
    shas = desk.draw(3)
    desk.ask(shas)
    for sha in shas:
        (task,) = (task for task in desk.tasks() if task["data"]["sha256"] == sha)
        old = {("mend" if key == "feedback" else key): value for key, value in task["data"].items()}
        old["mend"] = "ada: it is outside" if sha == shas[1] else ""
        change_task(desk.client, task["id"], data=old)
    tab = tabs(desk.client, desk.project.id)["Needs fixing"]
    data = json.loads(json.dumps(tab.data).replace("data.feedback", "data.mend")) | {"title": "To mend"}
    desk.client.views.update(id=str(tab.id), project=desk.project.id, data=data)
    page = desk.client.projects.get(desk.project.id).label_config or ""
    desk.client.projects.update(desk.project.id, label_config=page.replace("feedback", "mend"))
    desk.answer(shas[0], region())
    refused = desk.answer(shas[1], region(x=95))
    before = desk.tasks()

    for _ in range(2):
        assert ensure_project(desk.client, desk.settings, desk.taxonomy, desk.params).id == desk.project.id
    after = desk.tasks()
    assert [task["data"]["feedback"] for task in after] == ["", "ada: it is outside", ""]
    for old, new in zip(before, after, strict=True):
        assert {**new["data"], "mend": new["data"]["feedback"]} == {
            **old["data"],
            "feedback": old["data"]["mend"],
        }
        for kind in ("annotations", "predictions"):
            assert [(made["id"], made["result"]) for made in old[kind]] == [
                (made["id"], made["result"]) for made in new[kind]
            ]
    assert tabs(desk.client, desk.project.id).keys() == {"To label", "Needs fixing", "All"}
    shown = desk.client.tasks.list(
        view=tabs(desk.client, desk.project.id)["Needs fixing"].id, project=desk.project.id
    )
    assert [task.id for task in shown] == [desk.task(shas[1])]
    assert "$feedback" in (desk.client.projects.get(desk.project.id).label_config or "")
    found = desk.collect()
    assert (found.boxes, found.refused, found.labelled) == (1, 1, 1)
    desk.client.annotations.update(refused, result=[region()])
    desk.collect()
    assert [task["data"]["feedback"] for task in desk.tasks()] == ["", "", ""]
