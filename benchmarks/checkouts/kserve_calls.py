"""KServe calls by an unmodified tritonclient, over HTTP and gRPC: what it shows of answers and of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from checkouts.checkout import SAMPLES
from checkouts.comparison import without_noise
from support.kserve_clients import Face, as_dict

MODELS = ("avdigits", "avdigits_media", "avdigits_audio", "avdigits_visual", "avdigits_fusion")
TRANSPORTS = ("http", "grpc")
ID = "compared-0001"
_TYPES = {"FP32": np.float32, "UINT8": np.uint8, "BOOL": np.bool_, "FP64": np.float64}
_DETAIL = "dimml-error-bin"

Call = Callable[[Face], Any]


def answer(face: Face, call: Call) -> dict[str, Any]:
    """A call's answer, or its refusal with status, message and, over gRPC, the error's own detail."""
    try:
        found = call(face)
    except InferenceServerException as error:
        refusal = {"status": error.status(), "message": error.message()}
        cause = error.__context__
        if isinstance(cause, grpc.RpcError):
            trailing = {key: value for key, value in cause.trailing_metadata() or () if key != "x-request-id"}
            if _DETAIL in trailing:
                trailing[_DETAIL] = json.loads(trailing[_DETAIL])
            refusal["trailing"] = {key: trailing[key] for key in sorted(trailing)}
        return without_noise({"refused": refusal})
    return without_noise({"answer": _result(found) if hasattr(found, "get_response") else as_dict(found)})


def _result(result: Any) -> dict[str, Any]:
    document = as_dict(result.get_response())
    document.pop("raw_output_contents", None)
    arrays = {}
    for output in document["outputs"]:
        array = result.as_numpy(output["name"])
        values = [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]
        arrays[output["name"]] = {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}
        output.pop("data", None)
    return {"document": document, "arrays": arrays}


def _rows(face: Face, model: str, batch: int) -> dict[str, npt.NDArray[Any]]:
    """Random rows for every input of a model, by its own metadata."""
    rng = np.random.default_rng(11)
    rows: dict[str, npt.NDArray[Any]] = {}
    for tensor in as_dict(face.client.get_model_metadata(model))["inputs"]:
        shape, kind = [batch, *tensor["shape"][1:]], _TYPES[tensor["datatype"]]
        if kind is np.uint8:
            rows[tensor["name"]] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            values = rng.standard_normal(shape)
            rows[tensor["name"]] = values > 0 if kind is np.bool_ else (0.2 * values).astype(kind)
    return rows


def _infer(model: str, batch: int = 1, *, binary: bool = True, only: str = "", **given: Any) -> Call:
    """A call with random rows, ``only`` of one input; ``given`` is for tritonclient, ``outputs`` by name."""

    def call(face: Face) -> Any:
        rows = {name: row for name, row in _rows(face, model, batch).items() if only in ("", name)}
        inputs = [face.tensor(name, row, binary=binary) for name, row in rows.items()]
        options = {"request_id": ID, **given}
        if "outputs" in options:
            options["outputs"] = [face.output(name, binary=binary, **of) for name, of in options["outputs"].items()]
        return face.infer(model, inputs, **options)

    return call


def _tensors(model: str, **tensors: npt.NDArray[Any]) -> Call:
    return lambda face: face.infer(model, [face.tensor(n, a) for n, a in tensors.items()], request_id=ID)


def _media(folder: Path, name: str, tensor: str = "MEDIA", **numbers: float) -> Call:
    file = np.array([(folder / SAMPLES / name).read_bytes()], np.object_)
    return _tensors("avdigits_media", **{tensor: file}, **{k: np.array([v], np.float64) for k, v in numbers.items()})


def _damaged(value: float, name: str) -> Call:
    """Two rows, of one input the second one replaced."""

    def call(face: Face) -> Any:
        rows = _rows(face, "avdigits", 2)
        rows[name][1] = value
        return face.infer("avdigits", [face.tensor(n, row) for n, row in rows.items()], request_id=ID)

    return call


def lookups() -> Iterator[tuple[str, Call]]:
    """Calls that ask what is served."""
    yield "live", lambda face: face.client.is_server_live()
    yield "ready", lambda face: face.client.is_server_ready()
    yield "server metadata", lambda face: face.client.get_server_metadata()
    yield "index", lambda face: face.client.get_model_repository_index()
    for model in (*MODELS, "nothing"):
        yield f"{model} ready", lambda face, model=model: face.client.is_model_ready(model)
        yield f"{model} ready in version 2", lambda face, model=model: face.client.is_model_ready(model, "2")
        yield f"{model} metadata", lambda face, model=model: face.client.get_model_metadata(model)
        yield f"{model} config", lambda face, model=model: face.client.get_model_config(model)
    yield "metadata of version x", lambda face: face.client.get_model_metadata("avdigits", "x")
    yield "load", lambda face: face.client.load_model("avdigits")
    yield "unload", lambda face: face.client.unload_model("avdigits")
    yield "shared memory", lambda face: face.client.get_system_shared_memory_status()
    yield "trace settings", lambda face: face.client.get_trace_settings("avdigits")
    yield "log settings", lambda face: face.client.get_log_settings()


def statistics() -> Iterator[tuple[str, Call]]:
    """Counts of the calls before, without their times."""
    for model in ("", *MODELS, "nothing"):
        yield f"statistics {model}".strip(), lambda face, model=model: face.client.get_inference_statistics(model)


def inferences(folder: Path) -> Iterator[tuple[str, Call]]:
    """Tensors and recordings, right and wrong."""
    for model in ("avdigits", "avdigits_audio", "avdigits_visual", "avdigits_fusion"):
        yield f"{model}, 3 rows", _infer(model, 3)
        yield f"{model}, JSON tensors", _infer(model, binary=False)
        yield f"{model}, 33 rows", _infer(model, 33)
    yield "sound alone", _infer("avdigits", 2, only="WAVEFORM")
    yield "pictures alone", _infer("avdigits", 2, only="FRAMES")
    yield "no input", _infer("avdigits", only="none")
    yield "a silent row", _damaged(0.0, "WAVEFORM")
    yield "a row of NaN", _damaged(np.nan, "WAVEFORM")
    yield "a black row", _damaged(0, "FRAMES")
    yield "two outputs", _infer("avdigits", outputs={"STATUS": {}, "PROBABILITIES": {}})
    yield "classification", _infer("avdigits", 2, outputs={"PROBABILITIES": {"class_count": 3}})
    yield "classification of texts", _infer("avdigits", outputs={"STATUS": {"class_count": 1}})
    yield "an unknown output", _infer("avdigits", outputs={"ODDS": {}})
    yield "version 1", _infer("avdigits", model_version="1")
    yield "version 2", _infer("avdigits", model_version="2")
    yield "version x", _infer("avdigits", model_version="x")
    yield "a timeout of 20 s", _infer("avdigits", timeout=20_000_000)
    yield "a route key", _infer("avdigits", parameters={"route_key": "user-7"})
    yield "an unknown parameter", _infer("avdigits", parameters={"colour": "red"})
    yield "a bad timeout_ms", _infer("avdigits", parameters={"timeout_ms": -1})
    yield "a sequence", _infer("avdigits", sequence_id=5, sequence_start=True)
    yield "an unknown model", _tensors("nothing", X=np.zeros((1, 3), np.float32))
    yield "an unknown input", _tensors("avdigits", SOUND=np.zeros((1, 3), np.float32))
    yield "a wrong type", _tensors("avdigits", WAVEFORM=np.zeros((1, 3), np.float64))
    yield "a wrong shape", _tensors("avdigits", WAVEFORM=np.zeros((1, 3), np.float32))
    for path in sorted((folder / SAMPLES).iterdir()):
        yield f"media {path.name}", _media(folder, path.name)
    yield "media stretch", _media(folder, "long.mp4", START_S=1.2, END_S=2.4)
    yield "media end before start", _media(folder, "long.mp4", START_S=2.4, END_S=1.2)
    yield "media past the end", _media(folder, "long.mp4", START_S=99.0)
    yield "media NaN", _media(folder, "long.mp4", START_S=float("nan"))
    yield "media sound file", _media(folder, "spoken_nine.wav", "WAVEFORM_FILE")
    yield "media picture for sound", _media(folder, "written_nine.png", "WAVEFORM_FILE")
    yield "media start alone", _tensors("avdigits_media", START_S=np.array([0.1]))
    yield "media twice", _tensors("avdigits_media", MEDIA=np.array([b"a", b"b"], np.object_))
    yield "media empty", _tensors("avdigits_media", MEDIA=np.array([b""], np.object_))
