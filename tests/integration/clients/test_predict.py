"""``dimml predict``: table, JSON lines, exit codes; on a server over both transports and in this process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dimml.system.child_process import start_python_child
from dimml.system.installation import install_command
from dimml_client.cli.predict import PredictInput, PredictOptions, local
from support.forked import run_forked
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip, two_voices


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository) as running:
        yield running


@pytest.fixture(params=["http", "grpc", "repository"])
def target(request: pytest.FixtureRequest, server: ServerProcess, repository: Path) -> list[str]:
    return {
        "http": ["--url", server.url],
        "grpc": ["--url", f"grpc://{server.grpc}"],
        "repository": ["--repository", str(repository)],
    }[request.param]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    made = tmp_path_factory.mktemp("made")
    for name, data in {
        "red.mp4": tiny_clip(made, 0, 2.0),
        "blue.mp4": tiny_clip(made, 2),
        "green_no_sound.mp4": tiny_clip(made, 1, sound=None),
        "broken.mp4": b"this is no recording" * 50,
        "voices.mkv": two_voices(made),
    }.items():
        (folder / name).write_bytes(data)
    return folder


def predict(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_forked([sys.executable, "-m", "dimml", "predict", *words], folder)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_has_a_line_per_file_and_a_bad_file_costs_no_other(target: list[str], clips: Path) -> None:
    done = predict("red.mp4", "broken.mp4", "gone.mp4", "green_no_sound.mp4", *target, "--json", folder=clips)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    red, broken, gone, green = lines(done)
    assert (red["file"], red["label"], red["degraded"]) == ("red.mp4", "red", False)
    assert red["modalities"]["audio"]["status"] == "ok"
    assert broken["error"]["code"] == "unusable_media"
    assert broken["error"]["modalities"] == {"audio": "unusable:undecodable", "visual": "unusable:undecodable"}
    assert (gone["file"], gone["error"]["code"], gone["error"]["field"]) == ("gone.mp4", "invalid_parameter", "media")
    assert (green["label"], green["degraded"]) == ("green", True)
    assert green["modalities"]["audio"]["reason"] == "no_track"


def test_the_table_names_every_file_and_what_became_of_it(target: list[str], clips: Path) -> None:
    done = predict("red.mp4", "broken.mp4", "green_no_sound.mp4", *target, folder=clips)
    assert done.returncode == 1
    head, red, broken, green, error = done.stdout.splitlines()
    assert head.split() == [
        "file",
        "label",
        "prob.",
        "audio",
        "visual",
        *(["fused"] if "fused" in head else []),
        "note",
    ]
    assert red.split()[:2] == ["red.mp4", "red"]
    assert "%" in red
    assert broken.split() == ["broken.mp4", "error"]
    assert green.startswith("green_no_sound.mp4  green")
    assert {"no_track", "degraded"} <= set(green.split())
    assert error.startswith("broken.mp4: no requested modality is usable: audio unusable:undecodable")
    assert max(map(len, (head, red, broken, green))) <= 80
    assert predict("red.mp4", *target, folder=clips).returncode == 0


def test_a_stretch_top_k_and_the_model(target: list[str], clips: Path) -> None:
    words = ["red.mp4", "--start", "0.5", "--end", "1.5", "--top-k", "2", "--model", "tiny", "--json"]
    done = predict(*words, *target, folder=clips)
    assert done.returncode == 0, done.stderr
    (red,) = lines(done)
    assert len(red["predictions"]) == 2
    past = predict("red.mp4", "--start", "50", "--json", *target, folder=clips)
    assert past.returncode == 1
    assert lines(past)[0]["error"]["code"] == "invalid_parameter"


def test_one_of_several_tracks(target: list[str], clips: Path) -> None:
    done = predict("voices.mkv", "--audio-track", "fra", "--json", *target, folder=clips)
    assert (done.returncode, lines(done)[0]["label"]) == (0, "green")
    absent = predict("red.mp4", "--audio-track", "0", "--video-track", "deu", "--json", *target, folder=clips)
    assert lines(absent)[0]["modalities"]["visual"]["reason"] == "no_track"


def test_why_and_what_if(target: list[str], clips: Path) -> None:
    words = ["--explain", "shapley", "--damage", "audio:noise:30", "--damage", "visual:cover:0.1", *target]
    done = predict("red.mp4", "--json", *words, folder=clips)
    (red,) = lines(done)
    assert red["damage"] == {"audio": "noise:30", "visual": "cover:0.1"}
    assert set(red["explanation"]["modalities"]) == {"audio", "visual"}
    assert "explanation" not in lines(predict("red.mp4", "--json", *target, folder=clips))[0]


def test_in_this_process_it_starts_one_decode_worker(
    repository: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of cores: recordings come one after another."""
    monkeypatch.setattr("dimml.media.workers.process.start_python_child", start_python_child)  # as a user has it
    before = decode_workers()
    with local(repository, PredictOptions()) as predict_here:
        assert predict_here(PredictInput("red", {"media": clips / "red.mp4"})).label == "red"
        assert len(decode_workers() - before) == 1


def decode_workers() -> set[str]:
    """Processes of those that this one has started."""
    children = {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()}
    return {
        child
        for child in children
        if b"from dimml.media.workers.main import" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def test_a_modality_may_have_a_file_of_its_own(target: list[str], clips: Path) -> None:
    alone = predict("--modality", "audio=red.mp4", "--json", *target, folder=clips)
    assert alone.returncode == 0, alone.stderr
    assert (lines(alone)[0]["label"], lines(alone)[0]["modalities"]["visual"]["reason"]) == ("red", "not_sent")
    both = predict("blue.mp4", "--modality", "audio=red.mp4", "--json", *target, folder=clips)
    assert lines(both)[0]["file"] == "blue.mp4 + red.mp4"
    assert lines(both)[0]["modalities"]["audio"]["status"] == "ok"
    wrong = predict("--modality", "smell=red.mp4", "--json", *target, folder=clips)
    assert wrong.returncode == 1
    assert "smell" in lines(wrong)[0]["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a.mp4", "b.mp4", "--modality", "audio=c.wav"],
        ["a.mp4", "--modality", "audio"],
        ["--modality", "audio=a", "--modality", "audio=b"],
        ["a.mp4", "--url", "http://127.0.0.1:1", "--repository", "models"],
        ["a.mp4", "--repository", "models", "--route-key", "me"],
        ["a.mp4", "--top-k", "0"],
        ["a.mp4", "--start", "-1"],
        ["a.mp4", "--audio-track", "first"],
        ["a.mp4", "--video-track", "loudest"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    done = predict(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_what_cannot_work_at_all_is_one_line(tmp_path: Path) -> None:
    for words in (["--url", "ftp://host"], ["--repository", str(tmp_path / "nosuch")], ["--repository", str(tmp_path)]):
        done = predict("a.mp4", *words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.strip().splitlines()) == 1


def test_nobody_listening_is_an_error_row(clips: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = predict("red.mp4", "--url", f"http://127.0.0.1:{port}", "--json", folder=clips)
    assert done.returncode == 1
    assert "is the server running" in lines(done)[0]["error"]["message"]


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["predict", "red.mp4"], "serve"),
        (["score", "red.mp4", "--out", "never.csv"], "serve,score"),
    ],
)
def test_without_the_serve_extra_a_command_in_this_process_names_it(
    clips: Path, repository: Path, words: list[str], extra: str
) -> None:
    code = textwrap.dedent("""
        import sys
        from importlib.abc import MetaPathFinder

        class Missing(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name.split(".")[0] == "onnxruntime":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        from dimml.cli import main
        sys.exit(main([*sys.argv[2:], "--repository", sys.argv[1]]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(repository), *words], capture_output=True, text=True, check=False, cwd=clips
    )
    assert done.returncode == 1
    assert install_command(extra) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_version_that_is_not_the_newest_answers_in_this_process(tmp_path: Path, clips: Path) -> None:
    for _ in range(2):
        make_tiny_bundle(tmp_path / "models")
    words = (str(clips / "blue.mp4"), "--repository", str(tmp_path / "models"), "--json")
    assert lines(predict(*words, "--version", "1"))[0]["version"] == 1
    none = predict(*words, "--version", "3")
    assert none.returncode == 1
    assert "no version 3" in none.stderr
    assert "Traceback" not in none.stderr
