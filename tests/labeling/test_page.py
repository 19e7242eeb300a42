"""The labelling page in a real browser: what an annotator sees and does."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import REPOSITORY
from tests.labeling.conftest import Desk, region
from tests.servers import LabelStudioServer

WAIT = 60_000  # milliseconds: the page is 6 MB of script, on two busy cores
SHOTS = REPOSITORY / "build/test"


@pytest.fixture(scope="module")
def browser_page(browser: Browser, label_studio_server: LabelStudioServer) -> Iterator[Page]:
    """Chromium, logged in to Label Studio."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(WAIT)
    page.goto(f"{label_studio_server.url}/user/login/")
    page.fill("input[name=email]", label_studio_server.email)
    page.fill("input[name=password]", label_studio_server.password)
    page.click("button[type=submit]")
    page.wait_for_url("**/")
    yield page
    page.close()


@pytest.fixture
def page(browser_page: Page, desk: Desk) -> Page:
    """The page of the first of three tasks."""
    desk.ask(desk.draw(3))
    browser_page.goto(f"{desk.project.url}/data?task={desk.task(desk.frames[0])}")
    expect(browser_page.locator(".trashnet-panel")).to_be_visible(timeout=WAIT)
    expect(
        browser_page.locator(".lsf-outliner-item, .lsf-tree__node, [class*=outliner-item]").first
    ).to_be_visible(timeout=WAIT)
    return browser_page


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page for people to look at."""
    page.wait_for_timeout(1000)  # the canvas has no sign of being painted
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"label-studio-{name}.png")
    assert (SHOTS / f"label-studio-{name}.png").stat().st_size > 50_000


def test_a_frame_is_there_with_its_pre_labels_and_the_label_panel(page: Page, desk: Desk) -> None:
    """The picture comes from the store, five pre-labels are regions, 57 labels stand in four groups."""
    expect(page.locator(".trashnet-panel .lsf-label")).to_have_count(57)
    headings = [
        text.lower()
        for text in page.locator(
            ".trashnet-panel h4, .trashnet-panel h5, .trashnet-panel h6"
        ).all_inner_texts()
    ]
    assert headings == list(desk.taxonomy.streams)
    page.wait_for_function(
        "[...document.querySelectorAll('.trashnet-frame img')].some(image => image.naturalWidth === 640)",
        timeout=WAIT,
    )
    page.wait_for_function("document.querySelectorAll('.trashnet-frame canvas').length > 0", timeout=WAIT)
    expect(page.get_by_text("rare class: Paper cup 0.31").first).to_be_visible()
    for name in ("Clear plastic bottle", "Drink can", "Glass bottle", "Paper cup", "Spread tub"):
        expect(page.locator(".lsf-outliner").get_by_text(name)).to_be_visible()
    shoot(page, "task")


def test_typing_part_of_a_name_leaves_the_labels_that_have_it(page: Page) -> None:
    """The filter makes 57 labels manageable."""
    page.fill(".trashnet-panel input[type=text]", "carton")
    shown = page.locator(".trashnet-panel .lsf-label:visible")
    expect(shown).to_have_count(5)
    assert all("carton" in text.lower() for text in shown.all_inner_texts())


def test_the_queue_hands_out_a_frame_with_its_pre_labels(page: Page, desk: Desk) -> None:
    """An annotator presses "Label All Tasks", reads the instructions once, and begins."""
    page.goto(f"{desk.project.url}/data")
    page.get_by_text("Label All Tasks").click()
    expect(page.get_by_text("One tight, upright box around every item")).to_be_visible(timeout=WAIT)
    page.keyboard.press("Escape")
    expect(page.locator(".lsf-outliner").get_by_text("Drink can")).to_be_visible(timeout=WAIT)
    expect(page.get_by_text("Skip", exact=True)).to_be_visible()
    page.wait_for_function(
        "[...document.querySelectorAll('.trashnet-frame img')].some(image => image.naturalWidth === 640)",
        timeout=WAIT,
    )
    shoot(page, "queue")


def test_an_annotation_submitted_on_the_page_is_collected(page: Page, desk: Desk) -> None:
    """One press of Submit accepts the five pre-labels as the boxes of the frame."""
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Update", exact=True)).to_be_visible(timeout=WAIT)
    assert desk.collect().labelled == 1
    (row,) = desk.ledger.annotations_of(desk.frames[0])
    frame = desk.ledger.frame(desk.frames[0])
    assert frame is not None
    assert {box.label for box in row.boxes} == {detection.label for detection in frame.detections}
    for box in row.boxes:
        near = next(detection for detection in frame.detections if detection.label == box.label)
        assert box.xywh == pytest.approx(near.xywh, abs=0.5)
    assert (row.seconds or 0) > 0


def test_a_refused_answer_says_above_the_picture_what_needs_fixing(page: Page, desk: Desk) -> None:
    """The tab "Needs fixing" lists the task, and its page says in red what is wrong."""
    desk.answer(desk.frames[0], region(x=95))
    assert desk.collect().refused == 1
    page.goto(f"{desk.project.url}/data")
    page.get_by_text("Needs fixing", exact=True).first.click()
    page.goto(f"{desk.project.url}/data?task={desk.task(desk.frames[0])}")
    feedback = page.locator(".trashnet-feedback")
    expect(feedback).to_contain_text("the box of a Battery is partly outside the image", timeout=WAIT)
    page.wait_for_function(
        "[...document.querySelectorAll('.trashnet-frame img')].some(image => image.naturalWidth === 640)",
        timeout=WAIT,
    )
    shoot(page, "needs-fixing")
