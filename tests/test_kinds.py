"""Every kind of modality stands in every table of kinds, and nothing asks a modality for its class instead."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch
from import_graph import PACKAGES
from onnx import TensorProto
from pydantic import TypeAdapter

from dimml.contract import datatype_of
from dimml.modality import KINDS, Flow, Frames, Modality, Series, Track, Waveform
from dimml.signal_check import QualityThresholds, no_signal
from dimml_export.onnx_graph import element_type
from dimml_training.config.corruption_suite import BOTH, DAMAGES, FAMILIES, conditions
from dimml_training.config.modality import ModalityConfig
from dimml_training.corruptions.applying import corrupt
from dimml_training.data.augment import augment
from dimml_training.models import ResNetBackboneConfig
from dimml_training.models.encoder import build_encoder

#: What a new kind needs a row in, beside its class in ``dimml.modality`` (shape, dtype, track).
TABLES = (
    "dimml.explanation.damage.DAMAGES",
    "dimml.explanation.occlusion.BLANKS",
    "dimml.signal_check.CHECKS",
    "dimml_server.views.inputs.DRAWN",
    "dimml_training.config.corruption_suite.DAMAGES",
    "dimml_training.config.modality.SECTIONS",
    "dimml_training.corruptions.applying.DAMAGED",
    "dimml_training.corruptions.kin.applying.KIN_OF",
    "dimml_training.data.augment.AUGMENTS",
    "dimml_training.data.outliers.OUTLIERS",
    "dimml_training.data.prepare.ALARMS",
    "dimml_training.data.prepare.STRENGTHS",
    "dimml_training.models.encoder.ENCODERS",
)
EXAMPLES: Mapping[str, Modality] = {
    "waveform": Waveform(name="audio", sample_rate_hz=8000, samples=1600),
    "frames": Frames(name="visual", frames=2, height=16, width=16),
    "flow": Flow(name="motion", frames=2, height=16, width=16),
    "series": Series(name="imu", channels=3, sample_rate_hz=50, samples=64),
}
#: Of the rooms that may still ask for a class: each container and file format knows its own kinds.
MAY_ASK = ("dimml.media.",)


def kinds() -> set[str]:
    """What the schema of ``Modality`` takes."""
    return set(TypeAdapter(Modality).json_schema()["discriminator"]["mapping"])


def table(name: str) -> Mapping[str, Any]:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Mapping)
    return found


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_row_for_every_kind(name: str) -> None:
    assert set(table(name)) == kinds()


def test_kinds_are_those_of_the_schema() -> None:
    assert set(KINDS) == set(EXAMPLES) == kinds()


def test_every_table_is_listed() -> None:
    found = []
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            module = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
            names = re.findall(r"^(\w+): (?:Final\[)?Mapping\[Kind,", path.read_text(encoding="utf-8"), re.MULTILINE)
            found += [f"{module}.{name}" for name in names]
    assert sorted(found) == sorted(TABLES)


def test_nothing_asks_a_modality_for_its_class() -> None:
    classes = {kind.__name__ for kind in get_args(get_args(Modality)[0])}
    asking = []
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            module = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                    named = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                    if named & classes and not module.startswith(MAY_ASK):
                        asking.append(f"{module}:{node.lineno}")
    assert asking == [], "give the kind a row in a table, or the modality a property"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_every_kind_goes_all_the_way(kind: str) -> None:
    modality = EXAMPLES[kind]
    assert modality.track in get_args(Track)
    row = np.full(modality.shape, 0.5 if modality.dtype.kind == "f" else 200).astype(modality.dtype)
    row[0] = row[0] / 2
    assert no_signal(modality, row, QualityThresholds()) is None
    # As KServe, ONNX and Triton call the tensor's numbers.
    datatype = datatype_of(modality.dtype)
    assert TensorProto.DataType.Name(element_type(datatype)) == {"FP32": "FLOAT", "UINT8": "UINT8"}[datatype]
    config = TypeAdapter[Any](ModalityConfig).validate_python({"input": modality.model_dump()})
    assert config.input == modality
    nothing = DAMAGES[modality.kind].nothing
    empty = corrupt(row[None], modality, nothing, clip_ids=[0], draw=0, seed=0)
    assert (empty.dtype, empty.shape, len(np.unique(empty))) == (row.dtype, (1, *row.shape), 1)
    rows = torch.from_numpy(row[None])
    assert augment(modality, config.augment, rows).shape == rows.shape
    small = ResNetBackboneConfig(embedding_size=4, hidden_sizes=(4, 8), depths=(1, 1), stem="plain")
    encoder = build_encoder(modality, config.encoder.model_copy(update={"backbone": small}), 3).eval()
    features_BD, logits_BC = encoder(torch.cat([rows, rows]))
    assert (features_BD.shape, logits_BC.shape) == ((2, 8), (2, 3))


def test_every_sense_has_families_and_a_part_in_conditions_of_both() -> None:
    senses = {damages.sense for damages in DAMAGES.values()}
    assert {family.kind for family in FAMILIES} == senses
    for both in BOTH:
        assert set(both) == senses
    names = {condition.name for condition in conditions(list(EXAMPLES.values()), "all")}
    for modality in EXAMPLES.values():
        assert any(name.startswith(f"{modality.name}:") and not name.endswith("absent") for name in names)
