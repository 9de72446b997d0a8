"""The chart of estimated accuracy in the tab Now, on a server that estimates from few answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml.monitoring.reference import Reference
from dimml_server.console.page import page_files
from support.browsing import AXE, Console
from support.data import unavailable
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import coloured, tiny_clip

ANSWERS = 3
REFERENCE = Reference(labels=(1, 1, 1), answer_probability={"audio+visual": 0.62, "audio": 0.41})


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    if not page_files():
        unavailable("the console is not built: make console")
    folder = tmp_path_factory.mktemp("watched")
    make_tiny_bundle(folder, reference=REFERENCE)
    with running_server(folder, drift_minimum=ANSWERS) as it:
        yield it


def test_estimates_stand_beside_their_references_for_everybody(
    watched: ServerProcess, browser: Any, tmp_path: Path
) -> None:
    """Means of the probabilities that the client got, in the table of the chart; axe-core, dark, and 360 px wide."""
    if not AXE.is_file():
        unavailable("axe-core is not installed: make console")
    with Console.opened(browser, watched.url) as console:
        page = console.page
        console.tab("Now")
        model = page.get_by_role("region", name="Model tiny:1")
        model.get_by_role("heading", name="Estimated accuracy").wait_for()
        model.get_by_text("None yet: it takes as many answers").wait_for()
        assert model.get_by_role("img", name="Estimated accuracy").count() == 0

    # Sound and picture of different classes, so that the answers of both are unsure.
    both = [_probability(watched, tmp_path, label) for label in range(ANSWERS)]
    sound = [_probability(watched, tmp_path, label, modalities="audio") for label in range(ANSWERS)]
    _probability(watched, tmp_path, 0, modalities="visual")  # one alone is too few
    assert abs(sum(both) - sum(sound)) > 0.15 * ANSWERS, "figures that can be told apart"

    with Console.opened(browser, watched.url) as console:
        page = console.page
        console.tab("Now")
        chart = page.get_by_role("region", name="Model tiny:1").locator("dm-chart", has_text="Estimated accuracy")
        chart.get_by_role("img", name="Estimated accuracy over the last hour").locator("canvas").wait_for()
        chart.get_by_text("as a table").click()
        rows = chart.get_by_role("region", name="Estimated accuracy").get_by_role("row")
        expected = {
            "audio + visual": sum(both) / ANSWERS,
            "audio + visual, validation": 0.62,
            "audio": sum(sound) / ANSWERS,
            "audio, validation": 0.41,
        }
        assert rows.first.get_by_role("columnheader").all_inner_texts() == ["at", *expected]
        found = [float(text.split("\u00a0")[0]) for text in rows.last.get_by_role("cell").all_inner_texts()[1:]]
        assert found == pytest.approx([100 * share for share in expected.values()], abs=0.51)
        assert console.axe() == []
        page.emulate_media(color_scheme="dark")
        assert console.axe("color-contrast") == []
        page.set_viewport_size({"width": 360, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def _probability(server: ServerProcess, folder: Path, label: int, **fields: str) -> float:
    clip = tiny_clip(folder, label, picture=coloured((label + 1) % 3))
    answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, data=fields)
    assert answer.status_code == 200, answer.text
    return float(answer.json()["probability"])
