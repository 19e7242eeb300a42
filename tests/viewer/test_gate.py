"""The app on a flywheel: champions, the gate's word, and champion beside challenger, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dataset import Log
from export import load_judgement
from tests.conftest import REPOSITORY
from tests.servers import S3Server
from tests.viewer.deployment import CANS, CIGARETTES, REASON, SmallDeployment, write_environment
from tests.viewer.served_app import served
from trashnet.taxonomy import Taxonomy
from viewer.server import ViewerOptions


@pytest.fixture(scope="module")
def address(deployment: SmallDeployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on the small deployment; there is no local build."""
    folder = tmp_path_factory.mktemp("served")
    with served(flywheel_options(deployment.environment, folder), folder / "streamlit.log") as address:
        yield address


def flywheel_options(environment: Path, local: Path) -> ViewerOptions:
    """A flywheel with these settings, and a local build in another folder."""
    return ViewerOptions(
        *(local / "data", local / "models", local / "scorecards", local / "predictions"),
        taxonomy=REPOSITORY / "taxonomy.yaml",
        params=REPOSITORY / "params.yaml",
        environment=environment,
    )


def open_gate(page: Page, address: str, role: str, section: str = "Verdict") -> None:
    """Open the page "Gate" for one model."""
    page.goto(f"{address}/gate")
    page.get_by_role("radio", name=role).click()
    expect(
        page.get_by_text(f"the {role} (against").or_(page.get_by_text("in use").first).first
    ).to_be_visible()
    page.get_by_role("radio", name=section).click()


def alt_texts(page: Page, count: int) -> list[str]:
    """What the pictures on the page show, once there are so many."""
    shown = page.locator('[data-testid="stImage"] img')
    expect(shown).to_have_count(count)
    return [str(shown.nth(position).get_attribute("alt")) for position in range(count)]


def test_a_frame_of_the_flywheel_goes_through_champion_and_challenger(page: Page, address: str) -> None:
    """Both of each role, with their versions' boxes; the sidebar says that it is the flywheel."""
    page.goto(address)
    expect(page.get_by_text("Clone:")).to_be_visible()
    titles = [f"{role} · {who}" for role in ("Teacher", "Student") for who in ("champion", "challenger")]
    for title in titles:
        expect(page.get_by_text(title, exact=True)).to_be_visible()
    boxes = ("Drink can 0.90", "Cigarette 0.90", "Drink can 0.60", "Drink can 0.70")
    assert alt_texts(page, 4) == [f"The photo with boxes: {one}" for one in boxes]
    expect(page.get_by_text(f"Frame, 1 to {CANS + CIGARETTES}")).to_be_visible()


def test_the_local_build_is_a_click_away(page: Page, address: str) -> None:
    """There is none here, and the page says so for log and models."""
    page.goto(address)
    page.get_by_role("radio", name="Local build").click()
    expect(page.get_by_text("Shown is the local build")).to_be_visible()
    expect(page.get_by_text("no dataset log here. dvc pull")).to_be_visible()


def test_the_page_says_who_is_champion_and_why(page: Page, address: str, deployment: SmallDeployment) -> None:
    """The version, who decided and the reason; the history lists both changes."""
    open_gate(page, address, "teacher")
    for role in ("Teacher", "Student"):
        expect(page.get_by_text(f"{role} in use")).to_be_visible()
    expect(page.get_by_text(deployment.champion.version, exact=True)).to_have_count(2)
    expect(page.get_by_text("because ann overrode the gate")).to_have_count(2)
    expect(page.get_by_text(f"Reason: {REASON}")).to_have_count(2)
    page.get_by_role("radio", name="History").click()
    expect(page.locator('[data-testid="stDataFrame"]')).to_have_count(1)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_every_finding_stands_on_the_page_as_a_sentence(
    page: Page, address: str, deployment: SmallDeployment, role: str
) -> None:
    """Word for word, with the outcome, the gate set and the origins of its frames."""
    judgement = load_judgement(deployment.store, deployment.challenger.version)
    assert judgement is not None
    verdict = judgement.models[role].verdict  # type: ignore[index]
    open_gate(page, address, role)
    expect(page.get_by_text(f"The gate {verdict.outcome} the {role}")).to_be_visible()
    expect(page.get_by_text("gate set gate-00001: 20 frames (20 exploration)")).to_be_visible()
    for finding in verdict.findings:
        expect(page.get_by_text(finding.sentence).first).to_be_visible()
    if verdict.more_frames:
        expect(page.get_by_text(f"About {verdict.more_frames:,} exploration frames more")).to_be_visible()


def test_the_slices_that_decided_show_frames_and_lead_to_all_of_them(page: Page, address: str) -> None:
    """Drink cans and their stream decided: four frames of each, as both models see them.

    The button leads to the 16 frames of the class.
    """
    open_gate(page, address, "teacher")
    expect(page.get_by_text("Slices that decided")).to_be_visible()
    shown = alt_texts(page, 2 * 2 * 4)
    assert shown[:2] == [
        "The photo with boxes: Drink can, Drink can 0.90",
        "The photo with boxes: Drink can, Cigarette 0.90",
    ]
    page.get_by_role("button", name="All frames of class Drink can").click()
    expect(page.get_by_text(f"in class Drink can: {CANS} lost, 0 won of {CANS}")).to_be_visible()
    expect(page.get_by_text(f"Frame, 1 to {CANS}")).to_be_visible()


def test_frames_are_browsed_in_the_order_of_their_differences(page: Page, address: str) -> None:
    """Most won first shows a cigarette, which only the challenger sorts right; the next items are listed."""
    open_gate(page, address, "teacher", "Frames")
    expect(page.get_by_text(f"in gate set gate-00001: {CANS} lost, {CIGARETTES} won of 20")).to_be_visible()
    page.get_by_role("combobox", name="Order").click()
    page.get_by_role("option", name="most won first").click()
    expect(page.get_by_alt_text("The photo with boxes: Cigarette, Drink can 0.90")).to_be_visible()
    expect(page.get_by_alt_text("The photo with boxes: Cigarette, Cigarette 0.90")).to_be_visible()
    page.get_by_text("Ground truth", exact=True).click()
    expect(page.get_by_alt_text("The photo with boxes: Cigarette 0.90")).to_be_visible()
    for _ in range(CIGARETTES):
        page.get_by_role("button", name="Next").click()
    expect(page.get_by_text(f"Frame, 1 to {CANS + CIGARETTES}")).to_be_visible()


def test_without_its_store_the_flywheels_frames_are_still_shown(
    page: Page, deployment: SmallDeployment, s3_server: S3Server, build: Path, tmp_path: Path
) -> None:
    """One sentence names the store and `trashnet up`; frames are the clone's, models those of the build."""
    environment = tmp_path / "stack.env"
    bucket = deployment.store.bucket
    write_environment(environment, deployment.clone, "http://127.0.0.1:9", s3_server, bucket)
    with served(flywheel_options(environment, build), tmp_path / "streamlit.log") as address:
        page.goto(address)
        expect(page.get_by_text("does not answer")).to_be_visible()
        expect(page.get_by_text("trashnet up").first).to_be_visible()
        expect(page.get_by_text("these are of the local build")).to_be_visible()
        alt_texts(page, 3)
        page.get_by_role("link", name="Gate").click()
        expect(page.get_by_text("does not answer")).to_be_visible()
        expect(page.get_by_text("gate-00001")).to_be_visible()
        page.goto("about:blank")


def test_incomplete_settings_are_named_and_the_local_build_is_shown(
    page: Page, build: Path, sample_log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """The page says which variable lacks."""
    environment = tmp_path / "stack.env"
    environment.write_text("TRASHNET_S3_ENDPOINT=http://127.0.0.1:9\n")
    with served(flywheel_options(environment, build), tmp_path / "streamlit.log") as address:
        page.goto(address)
        expect(page.get_by_text("TRASHNET_S3_ACCESS_KEY")).to_be_visible()
        expect(page.get_by_text("Shown is the local build")).to_be_visible()
        page.goto("about:blank")
