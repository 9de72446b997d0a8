"""A bundle with prediction sets, served: every way to ask gives the set of its definition, and abstains alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families

from dimml.cli import main
from dimml.errors import InvalidParameterError
from dimml.prediction import Prediction
from dimml_client import Client
from dimml_client.scoring.report.metrics import judge_table
from dimml_client.scoring.table.formats import read_metadata, read_rows
from dimml_client.scoring.table.schema import schema_of_table
from dimml_server.local import LocalPredictor
from support.scoring import rows_of, score
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import AUDIO, VISUAL, make_tiny_bundle, tiny_row
from support.tiny_media import LABELS, tiny_clip
from support.tiny_sets import SETS, grey_row, set_by_hand, tiny_sets, tiny_unknown

#: What is sent of each clip.
SENT = (None, ("audio",), ("visual",))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``sets`` abstains from sets of three labels; ``plain`` has no sets."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_bundle(folder, name="sets", prediction_sets=tiny_sets(**SETS, max_set_size=2))
    make_tiny_bundle(folder, name="plain")
    make_tiny_bundle(folder, name="wary", prediction_sets=tiny_sets(**SETS, unknown=tiny_unknown()))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(label) for label in LABELS]
    for label, folder in enumerate(folders):
        (folder / "clip.mp4").write_bytes(tiny_clip(folder, label))
    return [folder / "clip.mp4" for folder in folders]


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository, decode_workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def wanted(repository: Path, clips: list[Path]) -> dict[tuple[Path, Any], Prediction]:
    """The answers in this process."""
    with LocalPredictor(repository, decode_workers=1) as local:
        return {
            (clip, sent): local.predict(clip, model="sets", modalities=sent, top_k=3) for clip in clips for sent in SENT
        }


def test_the_sets_in_this_process_are_those_of_the_definition(wanted: dict[tuple[Path, Any], Prediction]) -> None:
    sizes = set()
    for answer in wanted.values():
        assert answer.set == set_by_hand(answer)
        assert answer.set[0] == answer.label
        assert answer.abstained == (len(answer.set) > 2)
        assert answer.abstained_reason == ("large_set" if answer.abstained else None)
        sizes.add(len(answer.set))
    assert {1, 3} <= sizes, "the thresholds tell the patterns apart"


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_client_gets_the_same_sets_over_both_transports(
    server: ServerProcess, wanted: dict[tuple[Path, Any], Prediction], transport: str
) -> None:
    url = server.url if transport == "http" else f"grpc://{server.grpc}"
    with Client(url) as client:
        assert client.describe("sets").sets
        assert not client.describe("plain").sets
        for (clip, sent), local in wanted.items():
            answer = client.predict(clip, model="sets", modalities=sent)
            assert (answer.set, answer.abstained, answer.abstained_reason) == (
                local.set,
                local.abstained,
                local.abstained_reason,
            )
        clip = next(iter(wanted))[0]
        asked = client.predict(clip, model="sets", modalities=("visual",), max_set_size=3, abstain_below=1.0)
        assert (asked.abstained, asked.abstained_reason) == (True, "low_probability")
        assert client.predict(clip, model="sets", modalities=("visual",), max_set_size=3).abstained is False
        for field, value in (("max_set_size", 1), ("abstain_below", 0.5)):
            with pytest.raises(InvalidParameterError, match="has no prediction sets") as refused:
                client.predict(clip, model="plain", **{field: value})
            assert refused.value.field == field


def test_the_json_has_the_fields_only_where_the_bundle_has_sets(server: ServerProcess, clips: list[Path]) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        models = {m["name"]: m["prediction_sets"] for m in http.get("/v1/models").json()["models"]}
        answers = {
            name: http.post("/v1/predict", data={"model": name}, files={"media": clips[0].read_bytes()}).json()
            for name in models
        }
    limits = {"coverage": 0.9, "abstain_below": None, "max_set_size": 2, "false_alarms": None}
    assert (models["plain"], models["sets"]) == (None, limits)
    assert models["wary"]["false_alarms"] == 0.05
    new = {"set", "abstained", "abstained_reason"}
    assert answers["sets"].keys() - answers["plain"].keys() == new
    assert not new & answers["plain"].keys()
    assert (answers["sets"]["set"], answers["sets"]["abstained"]) == (["red"], False)
    assert answers["sets"]["abstained_reason"] is None


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_kserve_gives_a_set_for_each_row_of_bundles_that_have_sets(server: ServerProcess, transport: str) -> None:
    module = tritonclient.http if transport == "http" else tritonclient.grpc
    rows = np.stack([tiny_row(VISUAL, label) for label in range(3)])
    tensor = module.InferInput(VISUAL.tensor, rows.shape, "UINT8")
    tensor.set_data_from_numpy(rows)
    with module.InferenceServerClient(server.http if transport == "http" else server.grpc) as client:
        answer = client.infer("sets", [tensor], parameters={"max_set_size": 1})
        plain = client.infer("plain", [tensor])
    p = answer.as_numpy("PROBABILITIES").astype(float)
    inside = 1 - p <= SETS["visual"] + 1e-6
    assert np.array_equal(answer.as_numpy("SET"), inside)
    large = inside.sum(axis=1, keepdims=True) > 1
    assert np.array_equal(answer.as_numpy("ABSTAINED"), large)
    assert answer.as_numpy("ABSTAINED_REASON").tolist() == [[b"large_set" if one else b""] for one in large[:, 0]]
    assert plain.as_numpy("SET") is None
    assert plain.as_numpy("ABSTAINED") is None


def test_an_answer_to_an_unknown_class_abstains_whatever_its_probability(
    server: ServerProcess, clips: list[Path]
) -> None:
    rows = np.stack([*(tiny_row(VISUAL, label) for label in range(3)), grey_row()])
    tensor = tritonclient.grpc.InferInput(VISUAL.tensor, rows.shape, "UINT8")
    tensor.set_data_from_numpy(rows)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        reasons = client.infer("wary", [tensor], parameters={"max_set_size": 3}).as_numpy("ABSTAINED_REASON")
    assert reasons[:, 0].tolist() == [b"", b"", b"", b"unknown_class"]
    with Client(server.url) as http:
        assert not any(http.predict(clip, model="wary").abstained for clip in clips)


def test_an_encoder_cannot_abstain(server: ServerProcess) -> None:
    row = tiny_row(AUDIO, 0)[None]
    tensor = tritonclient.grpc.InferInput(AUDIO.tensor, row.shape, "FP32")
    tensor.set_data_from_numpy(row)
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc) as client,
        pytest.raises(tritonclient.grpc.InferenceServerException, match="go with answers: ask 'sets'"),
    ):
        client.infer("sets_audio", [tensor], parameters={"max_set_size": 1})


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_tables_hold_the_sets_in_every_format(
    repository: Path, clips: list[Path], wanted: dict[tuple[Path, Any], Prediction], tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"table.{ending}"
    assert score(*clips, "--model", "sets", "--out", out, "-q", repository=repository) == 0
    metadata = read_metadata(out)
    assert metadata is not None
    rows = list(read_rows(out, schema_of_table(metadata)))
    for row, clip in zip(rows, clips, strict=True):
        answer = wanted[clip, None]
        assert row["set"] == answer.set
        assert (row["abstained"], row["abstained_reason"]) == (False, None)


def test_a_report_says_how_often_sets_held_the_true_label(repository: Path, clips: list[Path], tmp_path: Path) -> None:
    """Labels of which one is wrong: its set of one label misses it; nothing abstains from both modalities."""
    truths = ["red", "blue", "blue"]
    manifest = tmp_path / "clips.csv"
    lines = [f"{clip},,{truth}" for clip, truth in zip(clips, truths, strict=True)]
    lines += [f",{clip},{truth}" for clip, truth in zip(clips, truths, strict=True)]
    manifest.write_text("path,path_visual,label\n" + "\n".join(lines) + "\n")
    out, page = tmp_path / "table.parquet", tmp_path / "report.html"
    words = ("--model", "sets", "--out", out, "--report", page, "-q")
    assert score(manifest, *words, "--fail-on", "error", repository=repository) == 0
    both, picture = judge_table(out).as_dict()["sets"].values()
    assert list(judge_table(out).sets) == ["audio and visual", "visual"]
    assert both == {
        "rows": 3,
        "coverage": pytest.approx(2 / 3),
        "mean_size": 1.0,
        "abstained": 0,
        "accuracy_of_others": pytest.approx(2 / 3),
    }
    assert picture == {"rows": 3, "coverage": 1.0, "mean_size": 3.0, "abstained": 3, "accuracy_of_others": None}
    assert "Prediction sets" in page.read_text()


def test_a_server_s_table_is_the_same(
    server: ServerProcess, repository: Path, clips: list[Path], tmp_path: Path
) -> None:
    tables = {}
    for engine in ("local", "http", "grpc"):
        tables[engine] = tmp_path / f"{engine}.parquet"
        where = {
            "local": ["--repository", str(repository), "--cores", "1"],
            "http": ["--url", server.url],
            "grpc": ["--url", f"grpc://{server.grpc}"],
        }[engine]
        words = ["score", *map(str, clips), "--model", "sets", "--out", str(tables[engine]), "-q"]
        assert main([*words, *where]) == 0
    columns = ("set", "abstained", "abstained_reason", "label")
    found = {engine: [[row[c] for c in columns] for row in rows_of(table)] for engine, table in tables.items()}
    assert found["local"] == found["http"] == found["grpc"]


def test_metrics_count_sizes_and_abstentions(repository: Path, clips: list[Path]) -> None:
    with running_server(repository, decode_workers=1) as own, Client(own.url) as client:
        for sent in (("audio", "visual"), ("visual",), ("visual",)):
            client.predict(clips[0], model="sets", modalities=sent)
        client.predict(clips[0], model="plain")
        text = httpx.get(f"{own.url}/metrics").text
    found = {
        (sample.name, sample.labels.get("model"), sample.labels.get("reason"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["dimml_prediction_set_size_count", "sets", None, None] == 3
    assert found["dimml_prediction_set_size_sum", "sets", None, None] == 1 + 3 + 3
    assert found["dimml_prediction_set_size_bucket", "sets", None, "1.0"] == 1
    assert found["dimml_abstained_total", "sets", "large_set", None] == 2
    assert found["dimml_abstained_total", "sets", "low_probability", None] == 0
    assert ("dimml_abstained_total", "plain", "large_set", None) not in found
