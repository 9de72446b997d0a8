"""Classic Triton ensembles of a bundle's models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from dimml.bundle import Bundle
from dimml.contract import (
    FEATURES,
    LOGITS,
    MEDIA,
    PRESENT,
    ModelSpec,
    datatype_of,
    features_input,
    logits_input,
    model_specs,
)
from harness.report import ROOT

DECODE = "peer_decode"


def triton_type(datatype: str) -> str:
    """Triton's name of a datatype of KServe v2."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def add_models(config: Any, bundle: Bundle) -> None:
    """Add the encoders, then the fusion, as steps of an ensemble, and the fusion's outputs as its own."""
    specs = {spec.name: spec for spec in model_specs(bundle)}
    fusion = specs[bundle.fusion_model]
    for tensor in fusion.outputs:
        config.output.add(name=tensor.name, data_type=triton_type(tensor.datatype), dims=tensor.dims)
    for modality in bundle.modalities:
        spec = specs[bundle.encoder_model(modality.name)]
        to = {FEATURES: features_input(modality.name), LOGITS: logits_input(modality.name)}
        _step(config, spec, {modality.tensor: modality.tensor}, to)
    _step(config, fusion, {t.name: t.name for t in fusion.inputs}, {t.name: t.name for t in fusion.outputs})


def _step(config: Any, spec: ModelSpec, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    step = config.ensemble_scheduling.step.add(model_name=spec.name, model_version=-1)
    for model_tensor, ensemble_tensor in inputs.items():
        step.input_map[model_tensor] = ensemble_tensor
    for model_tensor, ensemble_tensor in outputs.items():
        step.output_map[model_tensor] = ensemble_tensor


def write_recording_ensemble(
    target: Path, repository: Path, bundle: Bundle, *, name: str, decoder: str, stall: str, instances: int
) -> None:
    """Write a repository whose ensemble takes a recording: decoding in Triton's Python backend, encoders, fusion.

    ``decoder`` as in ``peer_servers.pipeline``; ``stall`` names the modality whose encoder stalls; ``instances`` is the
    number of decoding processes.
    """
    specs = {spec.name: spec for spec in model_specs(bundle)}
    for model in (*(bundle.encoder_model(m.name) for m in bundle.modalities), bundle.fusion_model):
        (target / model / "1").mkdir(parents=True)
        shutil.copy(bundle.model_file(repository, model), target / model / "1" / "model.onnx")
        config = (repository / model / "config.pbtxt").read_text()
        if stall and specs[model].modality == stall:
            config = config.replace('backend: "onnxruntime"', 'backend: "python"')
            _write_model(target / model, "triton_stalled")
        (target / model / "config.pbtxt").write_text(config)

    decode = model_config_pb2.ModelConfig(name=DECODE, backend="python", max_batch_size=1)
    decode.input.add(name=MEDIA, data_type="TYPE_STRING", dims=[1])
    for modality in bundle.modalities:
        datatype = triton_type(datatype_of(modality.dtype))
        decode.output.add(name=modality.tensor, data_type=datatype, dims=modality.shape)
    decode.output.add(name=PRESENT, data_type="TYPE_BOOL", dims=[len(bundle.modalities)])
    decode.instance_group.add(count=instances, kind="KIND_CPU")
    for key, value in {"repository": str(repository.resolve()), "bundle": bundle.name, "decoder": decoder}.items():
        decode.parameters[key].string_value = value
    _write_model(target / DECODE, "triton_decode")
    (target / DECODE / "config.pbtxt").write_text(text_format.MessageToString(decode))

    ensemble = model_config_pb2.ModelConfig(name=name, platform="ensemble", max_batch_size=1)
    ensemble.input.add(name=MEDIA, data_type="TYPE_STRING", dims=[1])
    step = ensemble.ensemble_scheduling.step.add(model_name=DECODE, model_version=-1)
    step.input_map[MEDIA] = MEDIA
    for tensor in (*(modality.tensor for modality in bundle.modalities), PRESENT):
        step.output_map[tensor] = tensor
    add_models(ensemble, bundle)
    (target / name / "1").mkdir(parents=True)
    (target / name / "config.pbtxt").write_text(text_format.MessageToString(ensemble))


def _write_model(folder: Path, module: str) -> None:
    (folder / "1").mkdir(parents=True, exist_ok=True)
    path = f"import sys\n\nsys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
    line = f"from peer_servers.{module} import TritonPythonModel\n\n__all__ = ['TritonPythonModel']\n"
    (folder / "1" / "model.py").write_text(path + line)
