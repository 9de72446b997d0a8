"""``dimml init`` on a half-empty table: what it writes is trained on as it stands."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError
from dimml_training.config import load_config
from dimml_training.data.prepare import prepare
from dimml_training.first_config.media_sample import read_header
from dimml_training.first_config.start import run_name, write_first_config
from support.media_maker import write_clip


@pytest.fixture
def folder(tmp_path: Path, clips: Path) -> Path:
    """The clips of the tiny training, 0.8 s each, and a table without splits, some rows of which are of no use."""
    place = tmp_path
    (place / "clips").mkdir()
    names = sorted(path.name for path in clips.parent.glob("*.mp4"))
    for name in names:
        shutil.copy(clips.parent / name, place / "clips")
    write_clip(place / "clips" / "silent.mp4", 0.8, sound="silence")
    lines = ["name,what"]
    lines += [f"{name},{name.split('_')[1]}" for name in names]  # 11 of each class
    lines += ["silent.mp4,low", "away.mp4,low", f"{names[0]},low", "nothing.mp4,"]
    (place / "mine.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.slow(reason="trains")
def test_a_half_empty_table_gives_a_config_that_is_trained_on_as_it_stands(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["init", "mine.csv"]) == 0
    said = capsys.readouterr().out
    assert "class    what: 2 classes: " in said
    assert "split    made here: train 14, validation 4, test 4" in said  # 15 % of 11 are 2 of each class
    assert "left out 4 rows" in said
    assert "next:   dimml train mine.yaml" in said
    with (folder / "mine.left_out.csv").open() as file:
        reasons = {row["line"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "24": "audio unusable:silent",
        "25": "missing file away.mp4",
        "26": "the same clip as line 2",
        "27": "missing file nothing.mp4",
    }
    config = load_config("mine.yaml")
    audio, visual = config.inputs
    assert (config.name, config.clip_s) == ("mine", 0.8)
    assert (audio.shape, visual.shape) == ((12_800,), (16, 64, 96, 3))  # 0.8 s of 16 kHz; at 25 a second 20, of 96x64
    data = prepare(config, cache)
    assert {split: len(of.clips) for split, of in data.splits.items()} == {"train": 14, "validation": 4, "test": 4}
    assert data.warnings == []
    text = (folder / "mine.yaml").read_text()
    assert text.count("#") > 10, "a config with comments"
    assert "# Time on the machine it was written on: about" in text
    with pytest.raises(ConfigurationError, match=r"mine\.yaml exists; remove it, or choose another name with --out"):
        write_first_config("mine.csv")


def test_the_header_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    header = read_header(write_clip(tmp_path / "a.mp4", 0.4, width=160, height=96, fps=10, rate_hz=8000))
    assert (header.rate_hz, header.height, header.width, header.fps) == (8000, 96, 160, 10.0)
    assert read_header(write_clip(tmp_path / "a.wav", 0.4, picture=None, audio_codec="pcm_s16le")).height is None


def test_a_question_about_the_table_does_not_wait_for_torch(folder: Path) -> None:
    """Which of several columns is the class."""
    (folder / "mine.csv").write_text("clip,a,b\n" + "".join(f"{n}.mp4,{n % 2},{n % 3}\n" for n in range(9)))
    code = "import sys\nfrom dimml.cli import main\nprint(main(['init', sys.argv[1]]), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "mine.csv")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 False\n"
    assert "likely ones are a (2 values), b (3 values)" in done.stderr


def test_names_of_runs() -> None:
    assert run_name(Path("/data/My clips-2/labels.csv")) == "my_clips_2"
    assert run_name(Path("/data/x/7 Birds.csv")) == "birds"
