"""The app is served by its own command and used in a real browser, with real model files."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from dataset import Log
from tests.conftest import REPOSITORY
from tests.viewer.served_app import TIMEOUT_MILLISECONDS, free_port, local_options, served, wait_until_up


@pytest.fixture(scope="module")
def address(build: Path, sample_log: Log, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on the drawn log, with all models and scorecards."""
    options = local_options(sample_log.root, build)
    with served(options, tmp_path_factory.mktemp("served") / "streamlit.log") as address:
        yield address


def open_photos(page: Page, address: str) -> None:
    """Open the first page and wait for all three models."""
    page.goto(address)
    expect(page.get_by_text(re.compile(r"^[\d.]+ ms$"))).to_have_count(3)


def expect_pictures(page: Page, *boxes_by_model: str) -> None:
    """The photos on the page show exactly these boxes, model by model."""
    shown = page.locator('[data-testid="stImage"] img')
    expect(shown).to_have_count(len(boxes_by_model))
    for position, boxes in enumerate(boxes_by_model):
        expect(shown.nth(position)).to_have_attribute("alt", f"The photo with boxes: {boxes}")


def move_slider(page: Page, key: str, times: int) -> None:
    """Move the confidence by steps of 0.01."""
    page.get_by_role("slider").focus()
    for _ in range(times):
        page.keyboard.press(key)


def upload(page: Page, name: str, data: bytes) -> None:
    """Upload a photo."""
    page.locator('input[type="file"]').set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """A plain photo with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("RGB", (width, height), "olive").save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_a_frame_goes_through_all_three_models_and_they_are_compared(page: Page, address: str) -> None:
    """The page shows each model's box, class and score, and that int8 predicts another stream."""
    open_photos(page, address)
    expect(
        page.get_by_text("The models disagree. EfficientDet-D0 and SSD float: recycling; SSD int8: landfill.")
    ).to_be_visible()
    expect_pictures(page, "Drink can 0.90", "Drink can 0.80", "Cigarette 0.60")


def test_frames_can_be_stepped_through_and_compared_with_the_ground_truth(
    page: Page, address: str, sample_log: Log
) -> None:
    """The button Next shows the next test frame.

    The toggle adds the ground truth, and how many items each model sorts correctly.
    """
    frames = sample_log.frames("test")
    open_photos(page, address)
    expect(page.get_by_text(frames[0].file_name)).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text(frames[1].file_name)).to_be_visible()
    page.get_by_text("Ground truth", exact=True).click()
    expect(page.get_by_text("Ground truth:")).to_be_visible()
    labels = frames[1].labels
    assert labels is not None
    expect(page.get_by_text(f"Of {len(labels)} items")).to_have_count(3)
    truth = ", ".join(sample_log.taxonomy.name_of[int(c)] for c in labels.class_ids)
    expect_pictures(page, f"{truth}, Drink can 0.90", f"{truth}, Drink can 0.80", f"{truth}, Cigarette 0.60")
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text(frames[0].file_name)).to_be_visible()


def test_a_higher_confidence_threshold_hides_a_detection(page: Page, address: str) -> None:
    """Forty steps from 0.30 make 0.70, which is above the int8 model's 0.60; the page shows that score."""
    open_photos(page, address)
    move_slider(page, "ArrowRight", 40)
    expect(page.get_by_text("The highest score of all is 0.60")).to_be_visible()
    expect(page.get_by_text("SSD int8: not seen")).to_be_visible()
    expect_pictures(page, "Drink can 0.90", "Drink can 0.80", "none")
    move_slider(page, "ArrowLeft", 40)
    expect(page.get_by_text("SSD int8: landfill")).to_be_visible()


def test_one_class_can_be_shown_alone(page: Page, address: str) -> None:
    """The filter hides the boxes of other classes; the comparison still counts them."""
    open_photos(page, address)
    page.get_by_role("combobox", name="Show only").fill("Cigarette")
    page.keyboard.press("Enter")
    expect_pictures(page, "none", "none", "Cigarette 0.60")
    expect(page.get_by_text("The models disagree.")).to_be_visible()


def test_frames_can_be_chosen_by_class_split_and_disagreement(
    page: Page, address: str, sample_log: Log
) -> None:
    """If a class is chosen, only the frames that show it are left.

    The test split can be ordered by disagreement; for other splits the page says that it cannot.
    """
    open_photos(page, address)
    labels = [frame.labels for frame in sample_log.frames("test")]
    class_id = next(c for c in range(1, 58) if 0 < sum(c in item.class_ids for item in labels if item) < 4)
    count = sum(class_id in item.class_ids for item in labels if item)
    page.get_by_role("combobox", name="Class", exact=True).click()
    page.get_by_role("option", name=sample_log.taxonomy.name_of[class_id]).click()
    expect(page.get_by_text(f"Frame, 1 to {count}")).to_be_visible()
    page.get_by_role("combobox", name="Order").click()
    page.get_by_role("option", name="most disagreement first").click()
    expect(page.get_by_text(f"Frame, 1 to {count}")).to_be_visible()
    page.get_by_text("train", exact=True).click()
    expect(page.get_by_text("Predictions are kept for the test split only")).to_be_visible()


def test_an_uploaded_photo_is_turned_upright_and_goes_through_the_models(page: Page, address: str) -> None:
    """A photo that a telephone stored sideways, 120 × 60, is shown as 60 × 120.

    It is still shown after a visit to the scorecards.
    """
    open_photos(page, address)
    page.get_by_text("Your photo", exact=True).click()
    upload(page, "lunch.jpg", jpeg(120, 60, orientation=6))
    expect(page.get_by_text("lunch.jpg · 60 × 120 pixels")).to_be_visible()
    expect(page.get_by_alt_text("The photo with boxes: Drink can 0.90")).to_be_visible()
    page.get_by_role("link", name="Scorecards").click()
    expect(page.get_by_text("Utility", exact=True).first).to_be_visible()
    page.get_by_role("link", name="Photos").click()
    expect(page.get_by_text("lunch.jpg · 60 × 120 pixels")).to_be_visible()


def test_a_broken_photo_is_refused_in_plain_words(page: Page, address: str) -> None:
    """Each gets one sentence and no traceback, and the next photo works."""
    open_photos(page, address)
    page.get_by_text("Your photo", exact=True).click()
    upload(page, "notes.txt", b"milk, eggs, bin bags")
    expect(page.get_by_text("notes.txt is not a picture")).to_be_visible()
    upload(page, "broken.jpg", jpeg(640, 480)[:700])
    expect(page.get_by_text("broken.jpg is damaged")).to_be_visible()
    upload(page, "empty.png", b"")
    expect(page.get_by_text("empty.png is empty")).to_be_visible()
    assert page.locator('[data-testid="stException"]').count() == 0
    upload(page, "good.jpg", jpeg(80, 80))
    expect(page.get_by_text("good.jpg · 80 × 80 pixels")).to_be_visible()


def test_the_scorecards_are_shown_side_by_side(page: Page, address: str) -> None:
    """The page shows the numbers of three models, by stream and by class; a click shows another measure."""
    page.goto(f"{address}/scorecards")
    expect(page.locator('[data-testid="stMetric"]')).to_have_count(12)
    for words in ("EfficientDet-D0", "SSD float", "SSD int8", "Streams", "Classes"):
        expect(page.get_by_text(words, exact=True).first).to_be_visible()
    expect(page.get_by_text("4 test frames")).to_be_visible()
    page.get_by_text("Recall", exact=True).click()
    expect(page.locator('[data-testid="stDataFrame"]')).to_have_count(3)


def test_with_nothing_trained_the_app_says_so_and_shows_what_there_is(
    page: Page, sample_log: Log, tmp_path: Path
) -> None:
    """Without models and scorecards the page names the remedy for each.

    The frame and its ground truth are still shown.
    """
    options = local_options(sample_log.root, tmp_path)
    with served(options, tmp_path / "streamlit.log") as address:
        page.goto(address)
        expect(page.get_by_text("no such model. dvc repro")).to_have_count(3)
        page.get_by_text("Ground truth", exact=True).click()
        expect(page.get_by_text("Ground truth:")).to_be_visible()
        expect(page.locator('[data-testid="stImage"] img')).to_have_count(1)
        page.get_by_role("link", name="Scorecards").click()
        expect(page.get_by_text("No model has been evaluated yet.")).to_be_visible()
        page.goto("about:blank")


def test_one_missing_model_does_not_keep_the_others_from_working(
    build: Path, page: Page, tmp_path: Path
) -> None:
    """Without the teacher and a log the page says so, and an upload still goes through the two students."""
    (tmp_path / "models").mkdir()
    for name in ("ssd_float.tflite", "ssd_int8.tflite"):
        shutil.copy(build / "models" / name, tmp_path / "models")
    options = local_options(tmp_path / "data", tmp_path)
    with served(options, tmp_path / "streamlit.log") as address:
        page.goto(address)
        expect(page.get_by_text("no dataset log here. dvc pull")).to_be_visible()
        page.get_by_text("Your photo", exact=True).click()
        upload(page, "lunch.jpg", jpeg(80, 80))
        expect(page.get_by_text("no such model. dvc repro")).to_have_count(1)
        expect(
            page.get_by_text("The models disagree. SSD float: recycling; SSD int8: landfill.")
        ).to_be_visible()
        page.goto("about:blank")


def test_ctrl_c_ends_the_viewer_while_a_page_is_open(page: Page, sample_log: Log, tmp_path: Path) -> None:
    """A page that stays open keeps neither the command nor Streamlit's server alive."""
    port = free_port()
    program = (
        "import sys; from pathlib import Path; from viewer import run_viewer; "
        "run_viewer(Path(sys.argv[1]), Path(sys.argv[2]), Path('taxonomy.yaml'), port=int(sys.argv[3]), "
        "browser=False, environment_file=Path(sys.argv[2]) / 'none.env')"
    )
    log = tmp_path / "viewer.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(sample_log.root), str(tmp_path), str(port)],
            cwd=REPOSITORY,
            stdout=out,
            stderr=out,
            start_new_session=True,  # a group of its own: a terminal's Ctrl-C reaches every process of it
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, process, log)
        page.goto(address)
        expect(page.get_by_text("no such model. dvc repro")).to_have_count(3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=TIMEOUT_MILLISECONDS / 1000) == 0
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
