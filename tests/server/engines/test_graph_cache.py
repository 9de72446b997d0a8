"""Kept graphs: the same answers from them, made anew whenever anything they depend on is another, bounded in size."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.errors import BundleError
from dimml_server.engines import graph_cache, ort_session
from dimml_server.engines.graph_cache import GraphCache, content_of
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.process.wiring import build_service
from dimml_server.settings.settings import load_settings
from support.tiny_bundle import make_tiny_bundle, tiny_row

MODELS = 3  # Two encoders and the fusion.


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What sessions are made of, in order: ``kept`` graphs, models that are ``written``, or ``plain`` ones."""
    found: list[str] = []

    class Recorded(onnxruntime.InferenceSession):  # type: ignore[misc]  # untyped
        def __init__(self, model: Path | bytes, options: Any, providers: list[str]) -> None:
            super().__init__(model, options, providers=providers)
            kind = "kept" if isinstance(model, bytes) else "written" if options.optimized_model_filepath else "plain"
            found.append(kind)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    return found


def answers(bundle: Bundle, repository: Path, graphs: GraphCache | None, threads: int = 1) -> np.ndarray[Any, Any]:
    """Fused logits ``[3, C]`` of one engine that is made, loaded, asked and closed."""

    async def scenario() -> ensemble.EnsembleResult:
        engine = OnnxRuntimeEngine(concurrency=1, device="cpu", intra_op_threads=threads, graphs=graphs)
        await engine.load(bundle, repository)
        try:
            tensors = {m.name: np.stack([tiny_row(m, label) for label in range(3)]) for m in bundle.modalities}
            return await ensemble.run(engine, bundle, ensemble.judged(bundle, tensors, 3), timeout_s=10.0)
        finally:
            await engine.close()

    return asyncio.run(scenario()).fused.logits_BC


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx"))


def test_the_second_start_loads_what_the_first_kept_and_answers_the_same(tmp_path: Path, made: list[str]) -> None:
    bundle, folder = make_tiny_bundle(tmp_path / "models"), tmp_path / "graphs"
    plain = answers(bundle, tmp_path / "models", None)
    first = answers(bundle, tmp_path / "models", GraphCache(folder, 10**9))
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = answers(bundle, tmp_path / "models", GraphCache(folder, 10**9))
    assert made == ["plain"] * MODELS + ["written"] * MODELS + ["kept"] * MODELS
    np.testing.assert_array_equal(first, plain)
    np.testing.assert_array_equal(second, plain)
    # Nothing else lies there, and the second start wrote nothing.
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert len(kept) == MODELS
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def hold_the_graph_of_another(path: Path) -> None:
    other = next(entry for entry in entries(path.parent) if entry != path)
    path.write_bytes(other.read_bytes())


def have_the_name_of_another(path: Path) -> None:
    """A sound graph under another model's key, with the digest of its own name."""
    other = next(entry for entry in entries(path.parent) if entry != path)
    path.write_bytes(other.read_bytes())
    path.rename(path.with_name(f"{path.name.split('.')[0]}.{other.name.split('.', 1)[1]}"))


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, empty, hold_the_graph_of_another, have_the_name_of_another])
def test_what_is_damaged_or_of_another_model_is_made_again(
    tmp_path: Path, made: list[str], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    bundle, folder = make_tiny_bundle(tmp_path / "models"), tmp_path / "graphs"
    expected = answers(bundle, tmp_path / "models", GraphCache(folder, 10**9))
    names = [path.name for path in entries(folder)]
    made.clear()
    damage(entries(folder)[0])
    np.testing.assert_array_equal(answers(bundle, tmp_path / "models", GraphCache(folder, 10**9)), expected)
    assert sorted(made) == ["kept"] * (MODELS - 1) + ["written"]
    assert "is damaged or of something else; it is made again" in caplog.text
    assert [path.name for path in entries(folder)] == names


def test_a_graph_that_onnx_runtime_does_not_take_is_made_again(
    tmp_path: Path, made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, folder = make_tiny_bundle(tmp_path / "models"), tmp_path / "graphs"
    expected = answers(bundle, tmp_path / "models", GraphCache(folder, 10**9))
    entry = entries(folder)[0]
    name = entry.name.split(".")[0]
    entry.unlink()
    (folder / f"{name}.{graph_cache._digest(name, b'no graph')}.onnx").write_bytes(b"no graph")
    made.clear()
    np.testing.assert_array_equal(answers(bundle, tmp_path / "models", GraphCache(folder, 10**9)), expected)
    assert sorted(made) == ["kept"] * (MODELS - 1) + ["written"]
    assert "does not load" in caplog.text


def test_a_graph_is_not_used_where_anything_it_depends_on_is_another(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, folder = tmp_path / "models", tmp_path / "graphs"
    bundle = make_tiny_bundle(models)

    def start(bundle: Bundle = bundle, threads: int = 1) -> list[str]:
        made.clear()
        answers(bundle, models, GraphCache(folder, 10**9), threads)
        return list(made)

    start()
    assert start() == ["kept"] * MODELS
    assert start(threads=2).count("written") == 2  # The fusion has one thread in any case.
    with monkeypatch.context() as other:
        other.setattr(onnxruntime, "__version__", "1.0.0")
        assert start() == ["written"] * MODELS
    with monkeypatch.context() as other:
        other.setattr(graph_cache, "processor_identity", lambda: "x86_64; another; fpu avx512f")
        assert start() == ["written"] * MODELS
    with monkeypatch.context() as other:
        other.setattr(ort_session, "_ENTRIES", {"session.intra_op.allow_spinning": "1"})
        assert start() == ["written"] * MODELS
    with monkeypatch.context() as other:
        other.setattr(graph_cache, "FORMAT", graph_cache.FORMAT + 1)
        assert start() == ["written"] * MODELS
    assert start() == ["kept"] * MODELS
    # Another version of the model: other bytes of one encoder.
    changed = make_tiny_bundle(tmp_path / "others", raises="visual")
    assert content_of(changed, tmp_path / "others", "tiny_visual") != content_of(bundle, models, "tiny_visual")
    assert content_of(changed, tmp_path / "others", "tiny_audio") == content_of(bundle, models, "tiny_audio")


def test_the_content_of_a_model_is_that_of_all_its_files(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    alone = content_of(bundle, tmp_path, "tiny_audio")
    record = bundle.files["tiny_audio/1/model.onnx"]
    beside = bundle.model_copy(update={"files": {**bundle.files, "tiny_audio/1/model.onnx.data": record}})
    assert content_of(beside, tmp_path, "tiny_audio") != alone
    assert content_of(beside, tmp_path, "tiny_visual") == content_of(bundle, tmp_path, "tiny_visual")
    others = {path: one for path, one in bundle.files.items() if path != "tiny_audio/1/model.onnx"}
    assert content_of(bundle.model_copy(update={"files": others}), tmp_path, "tiny_audio") is None


def small_model(path: Path, name: str, values: int = 4) -> None:
    """``y = x + (a + b)`` whose sum of two constants is a node of its own."""
    constants = [numpy_helper.from_array(np.full(values, 2.0, np.float32), letter) for letter in "ab"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", values])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", values])],
        constants,
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)


def make(model: Path | bytes, written: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    if written is not None:
        options.optimized_model_filepath = str(written)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_constants_are_folded(tmp_path: Path) -> None:
    small_model(tmp_path / "model.onnx", "small")
    assert len(onnx.load(tmp_path / "model.onnx").graph.node) == 2
    GraphCache(tmp_path / "graphs", 10**9).session({"content": "small"}, tmp_path / "model.onnx", make)
    (entry,) = entries(tmp_path / "graphs")
    (node,) = onnx.load(entry).graph.node
    assert node.op_type == "Add"
    session = make(entry.read_bytes(), None)
    np.testing.assert_array_equal(session.run(None, {"x": np.ones((1, 4), np.float32)})[0], np.full((1, 4), 5.0))


def test_the_least_recently_used_go_past_the_bound(tmp_path: Path) -> None:
    folder = tmp_path / "graphs"
    for name in "abc":
        small_model(tmp_path / f"{name}.onnx", name, values=1000)
    GraphCache(folder, 10**9).session({"content": "a"}, tmp_path / "a.onnx", make)
    (of_a,) = entries(folder)
    cache = GraphCache(folder, 5 * of_a.stat().st_size // 2)
    cache.session({"content": "b"}, tmp_path / "b.onnx", make)
    (of_b,) = set(entries(folder)) - {of_a}
    for age, path in ((200, of_a), (100, of_b)):
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    cache.session({"content": "a"}, tmp_path / "a.onnx", make)  # Used: now b is the one not used for longest.
    left = folder / ".writing-left"
    left.mkdir()
    os.utime(left, (1.0, 1.0))
    (folder / ".writing-now").mkdir()
    cache.session({"content": "c"}, tmp_path / "c.onnx", make)
    assert of_a.exists()
    assert not of_b.exists()
    assert len(entries(folder)) == 2
    assert not left.exists()
    assert (folder / ".writing-now").exists()


def test_a_graph_above_the_bound_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_model(tmp_path / "a.onnx", "a", values=1000)
    session = GraphCache(tmp_path / "graphs", 1000).session({"content": "a"}, tmp_path / "a.onnx", make)
    assert session.run(None, {"x": np.zeros((1, 1000), np.float32)})[0][0, 0] == 4.0
    assert list((tmp_path / "graphs").iterdir()) == []
    assert "graph_cache_bytes allows less" in caplog.text


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_model(tmp_path / "a.onnx", "a")
    folder = tmp_path / "graphs"
    folder.mkdir()
    folder.chmod(0o777)
    cache = GraphCache(folder, 10**9)
    for _ in range(2):
        assert cache.session({"content": "a"}, tmp_path / "a.onnx", make).run(None, {"x": np.zeros((1, 4), np.float32)})
    assert entries(folder) == []
    assert caplog.text.count("others may write to it") == 1


def test_without_a_usable_folder_models_run_all_the_same(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_tiny_bundle(tmp_path / "models")
    expected = answers(bundle, tmp_path / "models", None)
    (tmp_path / "file").write_text("not a folder")
    np.testing.assert_array_equal(
        answers(bundle, tmp_path / "models", GraphCache(tmp_path / "file" / "graphs", 10**9)), expected
    )
    assert "is not used" in caplog.text
    # A full disk: the folder is there and takes nothing.
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    np.testing.assert_array_equal(
        answers(bundle, tmp_path / "models", GraphCache(tmp_path / "graphs", 10**9)), expected
    )
    assert "No space left" in caplog.text
    assert list((tmp_path / "graphs").iterdir()) == []
    # No processor to tell apart.
    monkeypatch.setattr(graph_cache, "processor_identity", lambda: None)
    answers(bundle, tmp_path / "models", GraphCache(tmp_path / "graphs", 10**9))
    assert made[-MODELS:] == ["plain"] * MODELS


def test_a_graph_that_cannot_be_written_costs_no_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_model(tmp_path / "a.onnx", "a")

    def full(model: Path | bytes, written: Path | None) -> Any:
        return make(model, None if written is None else written.parent / "not there" / "graph.onnx")

    session = GraphCache(tmp_path / "graphs", 10**9).session({"content": "a"}, tmp_path / "a.onnx", full)
    assert session.run(None, {"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[4.0] * 4]
    assert "is not kept" in caplog.text
    assert list((tmp_path / "graphs").iterdir()) == []


def test_a_file_that_is_no_model_is_still_named(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "models")
    bundle.model_file(tmp_path / "models", "tiny_audio").write_bytes(b"not a model")
    with pytest.raises(BundleError, match="tiny_audio"):
        answers(bundle, tmp_path / "models", GraphCache(tmp_path / "graphs", 10**9))


def test_several_may_start_at_once(tmp_path: Path) -> None:
    bundle, folder = make_tiny_bundle(tmp_path / "models"), tmp_path / "graphs"
    expected = answers(bundle, tmp_path / "models", None)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: answers(bundle, tmp_path / "models", GraphCache(folder, 10**9)), range(4)))
    for one in found:
        np.testing.assert_array_equal(one, expected)
    assert len(entries(folder)) == len(list(folder.iterdir())) == MODELS


def test_a_gpu_s_graphs_are_not_kept(tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, folder = make_tiny_bundle(tmp_path / "models"), tmp_path / "graphs"
    monkeypatch.setattr(ort_session.ModelSession, "_check_provider", lambda *_: None)
    monkeypatch.setattr("dimml_server.engines.onnxruntime.providers", lambda _: [("CPUExecutionProvider", {})])
    answers(bundle, tmp_path / "models", GraphCache(folder, 10**9))
    # The fusion stays on the CPU, and is kept.
    assert sorted(made) == ["plain"] * (MODELS - 1) + ["written"]
    assert len(entries(folder)) == 1


@pytest.mark.parametrize("bytes_", [2**20, 0])
def test_the_settings_turn_it_on(tmp_path: Path, bytes_: int) -> None:
    make_tiny_bundle(tmp_path / "models")
    folder = tmp_path / "graphs"
    settings = load_settings(
        repository=tmp_path / "models", decode_workers=1, graph_cache=folder, graph_cache_bytes=bytes_
    )

    async def scenario() -> None:
        service = build_service(settings, Metrics())
        await service.start()
        await service.close()

    asyncio.run(scenario())
    assert len(entries(folder)) == (MODELS if bytes_ else 0)
