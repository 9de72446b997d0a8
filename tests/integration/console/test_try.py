"""The tab Try, as a person would use it: a clip in, what each modality believes out, and what if it were otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.browsing import Console
from support.data import REPOSITORY_ROOT
from support.media_maker import tone, write_clip
from support.server_process import ServerProcess
from support.tiny_bundle import tone_hz
from support.tiny_media import coloured, tiny_clip

SAMPLES = REPOSITORY_ROOT / "samples"


def text_of(locator: Any) -> str:
    return re.sub(r"\s+", " ", locator.inner_text())


def test_a_sample_is_one_click_and_taking_the_sound_away_gives_it_no_weight(console: Console) -> None:
    console.page.get_by_role("button", name="seven: clean").click()
    card = console.answer("seven")
    assert "audio and visual agree on seven." in text_of(card)
    assert console.meter("audio: weight") + console.meter("visual: weight") == pytest.approx(1.0, abs=0.002)

    console.page.get_by_role("checkbox", name="audio").uncheck()
    card.get_by_text("before:").wait_for()
    assert console.meter("audio: weight") == 0.0
    assert console.meter("visual: weight") == 1.0
    assert "absent: not requested" in text_of(card)
    assert re.search(r"before: seven \d", text_of(card))
    assert "Only visual counted" in text_of(card)

    console.page.get_by_role("button", name="As it was").click()
    card.get_by_text("before:").wait_for(state="detached")
    assert console.meter("audio: weight") > 0.0


def test_noise_makes_the_sound_count_less(console: Console) -> None:
    console.page.get_by_role("button", name="three: clean").click()
    console.answer("three")
    clean = console.meter("audio: weight")
    slider = console.page.get_by_role("slider", name="Add noise: audio")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    slider.press("End")
    console.page.get_by_text("before:").wait_for()
    console.until("!document.querySelector('dm-console').shadowRoot.querySelector('dm-try').busy")
    assert slider.get_attribute("aria-valuetext") == "-20 dB"
    assert console.meter("audio: weight") < clean


def test_what_is_judged_can_be_moved_by_keyboard(console: Console) -> None:
    console.page.get_by_role("button", name="three digits, one after another").click()
    console.answer("eight")  # the middle of three
    end = console.page.get_by_role("slider", name="End of the judged stretch")
    console.until("e => Number(e.max) > 3", end)
    start = console.page.get_by_role("slider", name="Start of the judged stretch")
    start.focus()
    start.press("Home")
    console.page.get_by_text("Judged: 0:00.0").wait_for()
    end.focus()
    end.press("PageDown")
    with console.page.expect_response("**/v1/predict") as sent:
        end.fill("1.2")
    assert sent.value.json()["label"] == "zero"
    console.answer("zero")


def test_a_wrong_file_gets_the_message_of_the_api(console: Console, tmp_path: Path) -> None:
    console.expected = {422}
    path = tmp_path / "notes.txt"
    path.write_text("no recording at all")
    console.send(path)
    alert = console.page.get_by_role("alert")
    alert.get_by_text("No answer").wait_for()
    assert "no requested modality is usable" in text_of(alert)
    assert "unusable: undecodable" in text_of(alert)


def test_separate_files_are_judged_together(console: Console) -> None:
    console.page.get_by_text("A file for each modality instead").click()
    console.page.get_by_label("audio", exact=True).set_input_files(SAMPLES / "spoken_nine.wav")
    console.answer("nine")
    console.page.get_by_label("visual", exact=True).set_input_files(SAMPLES / "written_nine.png")
    console.page.get_by_text("audio and visual agree on nine.").wait_for()
    code = text_of(console.page.get_by_role("region", name="Request as curl"))
    assert "-F audio=@spoken_nine.wav" in code
    assert "-F visual=@written_nine.png" in code


def test_what_no_browser_plays_is_shown_as_it_was_decoded(console: Console, tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "old.avi",
        2.0,
        picture=coloured(0),
        sound=tone(tone_hz(0)),
        video_codec="mpeg4",
        audio_codec="mp3",
    )
    console.choose_model("tiny")
    console.send(clip)
    console.answer("red")
    console.page.get_by_text("This browser does not play this file").wait_for()
    seen = console.page.get_by_role("region", name="What the encoders saw")
    seen.get_by_role("img", name="spectrogram").wait_for()
    frames = seen.locator(".film img")
    frames.first.wait_for()
    colour = frames.first.evaluate("""async (image) => {
        await image.decode();
        const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d");
        context.drawImage(image, 0, image.naturalHeight - 1, 1, 1, 0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    }""")
    assert colour[0] > 150 > max(colour[1:3]), "the very frame: red"
    wave = seen.get_by_role("img", name="wave")
    assert wave.evaluate("c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0)")


def test_why_adds_up_and_moments_are_shown_on_request(console: Console) -> None:
    console.page.get_by_role("button", name="seven: clean").click()
    console.answer("seven")
    why = console.page.get_by_role("region", name="Why “seven”?")
    why.wait_for()
    found = re.search(r"log-probability: ([+−]\d+\.\d+) ([+−]\d+\.\d+) = ([+−]\d+\.\d+)", text_of(why))
    assert found is not None
    first, second, whole = (float(one.replace("−", "-")) for one in found.groups())
    assert first + second == pytest.approx(whole, abs=0.02)
    assert whole == pytest.approx(2.3, abs=0.1), "of ten classes, and surely seven"
    assert text_of(why).count("Without it the answer would be seven") == 2
    why.get_by_role("button", name="Which moments mattered?").click()
    why.get_by_role("img", name="audio: fall of the probability").wait_for()
    why.get_by_text("The same as a table").click()
    assert why.get_by_role("row").count() > 5


def test_camera_and_microphone_are_recorded_and_judged(console: Console, server: ServerProcess) -> None:
    console.choose_model("tiny")
    console.page.get_by_role("button", name="Record with camera and microphone").click()
    console.page.get_by_role("button", name="Start recording").click()
    console.page.get_by_label("What is recorded").wait_for()
    console.until("t => parseFloat(t.textContent) > 1.2", console.page.get_by_role("timer"))
    with console.page.expect_response("**/v1/predict") as sent:
        console.page.get_by_role("button", name="Stop and judge").click()
    answer = sent.value.json()
    assert answer["modalities"]["visual"]["status"] == "ok"
    assert answer["modalities"]["audio"]["status"] == "ok"
    console.page.get_by_text("recording.webm", exact=True).wait_for()


def test_labels_and_file_names_are_text(console: Console, tmp_path: Path) -> None:
    console.choose_model("zhostile")
    name = "<img src=x onerror=alert(3)> $(touch x) 'a' \"b\".mp4"
    console.send({"name": name, "mimeType": "video/mp4", "buffer": tiny_clip(tmp_path, 0)})
    card = console.answer("<img src=x onerror=alert(1)>")
    console.page.get_by_text(name, exact=True).wait_for()
    assert card.locator("img, script").count() == 0
    code = console.page.get_by_role("region", name="Request as curl").inner_text()
    quoted = name.replace("'", r"'\''").replace('"', r"\"")
    assert f"-F 'media=@\"{quoted}\"'" in code
