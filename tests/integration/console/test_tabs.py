"""Timeline, Models and Now, as a person would use them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml.repository import load_bundle
from dimml_client.scoring.table.schema import ScoredBundle, table_schema
from support.browsing import Console
from support.data import REPOSITORY_ROOT
from support.server_process import ServerProcess, running_server
from support.tiny_media import tiny_clip

SAMPLES = REPOSITORY_ROOT / "samples"
LANES = "Place in the recording"


def position(console: Console) -> float:
    return float(console.page.get_by_role("slider", name=LANES).get_attribute("aria-valuenow"))


def player_time(console: Console) -> float:
    return float(console.page.locator("dm-timeline video").evaluate("(video) => video.currentTime"))


def test_the_timeline_is_judged_moved_by_keyboard_and_saved(console: Console) -> None:
    page = console.page
    console.tab("Timeline")
    page.locator("dm-timeline input#file").set_input_files(SAMPLES / "long.mp4")
    page.get_by_text("3 windows, all complete").wait_for()
    lanes = page.get_by_role("slider", name=LANES)
    lanes.focus()
    said = []
    for key in ("Home", "ArrowRight", "ArrowRight"):
        lanes.press(key)
        said.append(re.sub(r".*: (\w+),.*", r"\1", lanes.get_attribute("aria-valuetext")))
    assert said == ["zero", "eight", "four"]
    assert position(console) == pytest.approx(2.4, abs=0.01)
    console.until("(video) => !video.seeking", page.locator("dm-timeline video"))
    assert player_time(console) == pytest.approx(2.4, abs=0.01)
    box = lanes.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    console.until("(video) => Math.abs(video.currentTime - 1.8) < 0.2", page.locator("dm-timeline video"))
    page.get_by_text("The same as a table").last.click()
    assert "four" in page.get_by_role("region", name="Windows").get_by_role("row").last.inner_text()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    table = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8"))))
    bundle = load_bundle(REPOSITORY_ROOT / "model_repository", "avdigits", 1)
    assert table[0] == table_schema(ScoredBundle.of(bundle)).names, "as dimml score writes it"
    rows = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    assert [row["label"] for row in rows] == said
    assert all(
        sum(float(row[f"probability_{label}"]) for label in bundle.labels) == pytest.approx(1, abs=1e-3) for row in rows
    )


def test_a_modality_that_is_out_shows_on_the_timeline(console: Console, tmp_path: Path) -> None:
    console.choose_model("tiny")
    console.tab("Timeline")
    tiny_clip(tmp_path, 0, seconds=2.0, picture="black")
    console.page.locator("dm-timeline input#file").set_input_files(tmp_path / "0.mp4")
    console.page.get_by_text(re.compile("4 windows, 4 with a modality out")).wait_for()
    console.page.locator("dm-lanes .pill", has_text="unusable: black").wait_for()


def test_two_versions_are_compared_on_a_labelled_folder(console: Console, tmp_path: Path) -> None:
    for label, name in enumerate(("red", "green", "blue")):
        (tmp_path / "clips" / name).mkdir(parents=True)
        tiny_clip(tmp_path / "clips" / name, label)
    page = console.page
    console.tab("Models")
    page.get_by_label("One version").select_option(label="tiny 1")
    page.get_by_label("The other version").select_option(label="tiny 2")
    page.locator("dm-compare #folder").set_input_files(tmp_path / "clips")
    page.get_by_text("tiny 1 is right more often: 3 against 1 of 3, which may be chance.").wait_for()
    page.get_by_text("They differ on 2. Only tiny 1 is right on 2, only tiny 2 on 0.").wait_for()
    rows = page.get_by_role("region", name="Files").get_by_role("row")
    assert rows.count() == 3, "a heading, and the two on which they differ"
    page.get_by_role("checkbox", name="Show files on which they agree").check()
    rows.nth(3).wait_for()
    assert rows.count() == 4


def test_a_model_card_says_what_is_recorded(console: Console) -> None:
    console.tab("Models")
    card = console.page.get_by_role("article", name="avdigits version 1")
    card.get_by_text("Accuracy on test clips (600)").wait_for()
    card.get_by_text("All that is recorded").click()
    sha256 = load_bundle(REPOSITORY_ROOT / "model_repository", "avdigits", 1).sha256
    card.get_by_text(sha256).first.wait_for()
    assert card.get_by_text("not recorded").count() > 0, "an old bundle"


def test_versions_are_split_shadowed_and_rolled_back(console: Console, server: ServerProcess) -> None:
    def routing() -> dict[str, Any]:
        return dict(httpx.get(f"{server.url}/v1/models/tiny/routing").json())

    page = console.page
    console.tab("Models")
    page.get_by_role("button", name="Show the controls").click()
    control = page.get_by_role("region", name="Control of tiny")
    first = control.get_by_role("row").nth(1)
    first.get_by_role("button", name="Unload").click()
    control.get_by_text("Version 1 is unloaded.").wait_for()
    assert routing()["loaded"] == [2]
    first.get_by_role("button", name="Load", exact=True).click()
    control.get_by_text("Version 1 is loaded.").wait_for()
    assert routing()["loaded"] == [1, 2]
    control.get_by_label("Percent of requests for version 2").fill("75")
    control.get_by_label("Percent of requests for version 1").fill("25")
    control.get_by_role("button", name="Set the split").click()
    control.get_by_text("The split is set.").wait_for()
    assert routing()["split"] == {"1": 25.0, "2": 75.0}
    control.get_by_role("button", name="Roll back to it").click()
    control.get_by_text("Version 1 answers everything.").wait_for()
    assert routing()["default"] == 1
    control.get_by_role("combobox", name="Shadow").select_option("2")
    control.get_by_text("Version 2 is the shadow.").wait_for()
    assert routing()["shadow"] == 2
    control.get_by_role("combobox", name="Shadow").select_option("")
    control.get_by_text("There is no shadow.").wait_for()
    control.get_by_role("button", name="Always the newest").click()
    control.get_by_text("The newest answers.").wait_for()
    assert routing()["split"] == {}


def test_now_moves_under_traffic_and_rests_when_not_looked_at(console: Console, server: ServerProcess) -> None:
    def silent() -> int:
        """Silent sounds of the hour, as the page says them."""
        section = page.get_by_role("region", name="Model avdigits:1")
        section.get_by_role("heading", name="What became of each modality").wait_for()
        found = section.locator(".pill", has_text="unusable: silent")
        return int(found.inner_text().split()[-1]) if found.count() else 0

    page = console.page
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/v1/now") else None)
    console.tab("Now")
    page.get_by_role("heading", name="Alerts that would fire now").wait_for()
    before = silent()
    console.tab("Try")
    count = len(asked)
    clip = (SAMPLES / "silent_sound.mp4").read_bytes()
    for _ in range(3):
        answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, data={"model": "avdigits"})
        assert answer.json()["modalities"]["audio"]["reason"] == "silent"
    assert len(asked) == count, "nobody looks"
    console.tab("Now")
    # The count of this status, and not another pill's that happens to be as much.
    counted = re.compile(rf"unusable: silent\D*{before + 3}\s*$")
    page.get_by_role("region", name="Model avdigits:1").locator(".pill", has_text=counted).wait_for()
    assert silent() == before + 3
    page.get_by_role("img", name="Requests a second").locator("canvas").wait_for()
    assert len(asked) > count


def test_a_server_with_keys_is_asked_with_the_key_and_the_page_keeps_none(browser: Any, repository: Path) -> None:
    from dimml_server.security.keys import new_key

    key, line = new_key("reader")
    with (
        running_server(repository, models="avdigits", api_keys=line.line) as server,
        Console.opened(browser, server.url) as console,
    ):
        console.expected = {401}
        dialog = console.page.get_by_role("dialog")
        dialog.get_by_text("This server wants an API key").wait_for()
        dialog.get_by_label("API key").fill("not this one")
        dialog.get_by_role("button", name="Use it").click()
        dialog.get_by_role("alert").wait_for()
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_label("API key").press("Enter")
        console.page.get_by_role("button", name="three: clean").click()
        console.answer("three")
        assert "$DIMML_API_KEY" in console.page.get_by_role("region", name="Request as curl").inner_text()
        kept = console.page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert key not in kept
        assert json.loads(kept)[:3] == [{}, {}, ""]
