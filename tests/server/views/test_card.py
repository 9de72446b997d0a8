"""Model cards: of the bundle in this repository, of one of before, and of manifests that hold anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dimml.bundle import Bundle, read_bundle
from dimml.signing import generate_keys, read_private_key, sign
from dimml_server.views.card import build_card
from support.data import REPOSITORY_ROOT
from support.tiny_bundle import make_tiny_bundle

AVDIGITS = REPOSITORY_ROOT / "model_repository"


def test_the_card_of_a_trained_bundle_says_what_its_manifest_does() -> None:
    path = AVDIGITS / "avdigits" / "1" / "bundle.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    card = build_card(read_bundle(path), AVDIGITS, checked=False)
    assert card.data is not None
    assert card.data.table == "manifest.csv"
    assert card.data.clips == {"train": 2100, "validation": 300, "test": 600}
    assert card.data.split_by == "subject"
    assert card.data.splits == {"train": "train", "validation": "validation", "test": "test"}
    assert card.training is not None
    assert card.training.objective == "detached"
    assert card.training.record is not None
    assert card.training.record["seed"] == manifest["training"]["seed"]
    test = manifest["metrics"]["test"]
    assert card.figures["test"] is not None
    assert card.figures["test"]["accuracy"] == test["accuracy"]
    assert card.figures["test"]["heads"]["audio"] == test["heads"]["audio"]
    assert "confusion" not in card.figures["test"]
    assert card.fusion is not None
    assert card.fusion.chosen == manifest["selection"]["chosen"]
    assert card.fusion.instead_of is not None
    assert card.fusion.instead_of["paper"]["objective"] == 0.9509
    assert card.calibration == {
        "clean_ece": 0.0001,
        "clean_ece_of_perfect_calibrator": 0.0001,
        "head_temperatures": manifest["fusion"]["head_temperatures"],
        "answer_temperature": manifest["fusion"]["answer_temperature"],
    }
    assert card.reduced_precision is None
    assert card.parity is not None
    assert max(one["labels_differ"] for one in card.parity) == 0
    # Exported before these were kept.
    assert card.corrupted is None
    assert card.data.sha256 is None
    for name, record in list(card.hashes.files.items())[:2]:
        assert hashlib.sha256((AVDIGITS / name).read_bytes()).hexdigest() == record.sha256
    assert (card.signature.signed, card.signature.checked) == (False, False)


def test_what_a_manifest_lacks_is_not_recorded(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    card = build_card(bundle, tmp_path, checked=False)
    for name in ("data", "training", "corrupted", "calibration", "fusion", "signal_check", "parity"):
        assert getattr(card, name) is None, name
    assert card.figures == {"validation": None, "test": None}
    assert card.drift_reference is False
    assert card.hashes.manifest == bundle.sha256


def test_figures_under_corruptions_and_the_digest_of_the_data_are_shown_where_they_are() -> None:
    bundle = read_bundle(AVDIGITS / "avdigits" / "1" / "bundle.json")
    corrupted = {"split": "test", "conditions": {"audio:white_0db": {"accuracy": 0.9}}, "means": {"seen": None}}
    newer = bundle.model_copy(
        update={
            "metrics": {**bundle.metrics, "corrupted": corrupted},
            "training": {**bundle.training, "data_sha256": "ab" * 32},
        }
    )
    card = build_card(newer, AVDIGITS, checked=True)
    assert card.corrupted == corrupted
    assert card.data is not None
    assert card.data.sha256 == "ab" * 32
    assert card.signature.checked is True


@pytest.mark.parametrize("odd", [None, 3, "text", [], [1], {}, {"config": 3}, {"config": {"data": []}}])
def test_a_manifest_may_hold_anything(tmp_path: Path, odd: Any) -> None:
    bundle: Bundle = make_tiny_bundle(tmp_path)
    mapping = odd if isinstance(odd, dict) else {"config": odd, "clips": odd, "quality_report": odd, "data_sha256": odd}
    changed = bundle.model_copy(
        update={
            "training": mapping,
            "metrics": {"validation": odd, "test": odd, "parity": odd, "corrupted": odd},
            "selection": {"chosen": odd, "instead_of": odd},
        }
    )
    card = build_card(changed, tmp_path, checked=False)
    assert card.figures["test"] is None
    assert card.model_dump_json()


def test_the_folder_of_the_table_stays_with_the_one_who_trained(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path).model_copy(
        update={"training": {"config": {"data": {"manifest": "/home/someone/secret/clips.csv"}}}}
    )
    card = build_card(bundle, tmp_path, checked=False)
    assert card.data is not None
    assert card.data.table == "clips.csv"
    assert "secret" not in card.model_dump_json()


def test_a_signature_is_seen(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "models")
    generate_keys(tmp_path / "own.key", tmp_path / "own.pub")
    sign(tmp_path / "models" / "tiny" / "1" / "bundle.json", read_private_key(tmp_path / "own.key"))
    assert build_card(bundle, tmp_path / "models", checked=True).signature.signed is True
    assert build_card(bundle, tmp_path / "elsewhere", checked=False).signature.signed is None
