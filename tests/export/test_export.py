"""``dimml export`` of real (if hardly trained) torch runs, end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

from dimml.cli import main
from dimml.contract import features_input, logits_input
from dimml.errors import BundleError, ConfigurationError, SetupError
from dimml.fusion import FusionParameters, FusionSpec, fuse, heads_present
from dimml.repository import bundle_names, load_bundle
from dimml_export.encoder_graph import encoder_model
from dimml_export.export import export_run
from dimml_export.fusion_graph import fusion_model
from dimml_export.onnx_graph import IR_VERSION, OPSET
from dimml_export.parity import Outputs, check_chain, check_encoder, check_fusion
from dimml_training.run.directory import load_run, write_data_digest
from dimml_training.run.fusion import write_fusion
from support.hardly_trained import BACKBONE, CONFIG, LABELS, alone, make_run, rows
from support.reliability import random_reliability

DATA_SHA256 = "ab" * 32
pytestmark = pytest.mark.slow(reason="exports torch runs, each of several seconds")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "tones")
    write_data_digest(folder, DATA_SHA256)
    evaluated = {"split": "test", "families": "seen", "seed": 3, "means": {"seen": None, "development": None}}
    evaluated |= {"fusion": load_run(folder).fusion.model_dump(mode="json"), "conditions": {"clean": {"accuracy": 0.9}}}
    (folder / "corruptions.json").write_text(json.dumps(evaluated))
    return folder


@pytest.fixture(scope="module")
def one_eyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pictures alone."""
    return make_run(tmp_path_factory.mktemp("one_eyed") / "run", alone(CONFIG["modalities"][1]))


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run exported once through the library; the repository and what the export says of itself."""
    repository = tmp_path_factory.mktemp("models")
    return repository, export_run(run_folder, repository).as_dict()


def session(repository: Path, model: str) -> ort.InferenceSession:
    return ort.InferenceSession(repository / model / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def test_the_bundle_answers_as_the_trained_run_does(run_folder: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    repository, _ = exported
    run, bundle = load_run(run_folder), load_bundle(repository, "tones")
    feeds: dict[str, Any] = {"PRESENT": np.ones((10, 2), np.bool_)}
    features, logits = [], []
    for modality in run.modalities:
        with torch.no_grad():
            trained = run.encoders[modality.name](torch.from_numpy(run.samples[modality.name]))
        served = session(repository, bundle.encoder_model(modality.name)).run(
            ["FEATURES", "LOGITS"], {modality.tensor: run.samples[modality.name]}
        )
        for ours, theirs in zip(served, trained, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
        feeds[features_input(modality.name)], feeds[logits_input(modality.name)] = served
        features.append(trained[0])
        logits.append(trained[1])
    assert run.fused_head is not None
    with torch.no_grad():
        heads = torch.stack([*logits, run.fused_head(torch.cat(features, dim=1))], dim=1).numpy()
    expected = fuse(heads, heads_present(feeds["PRESENT"], True))
    (probabilities,) = session(repository, bundle.fusion_model).run(["PROBABILITIES"], feeds)
    np.testing.assert_allclose(probabilities, expected.probabilities_BC, atol=1e-4)


def test_the_manifest_says_how_it_was_trained_and_how_well(
    run_folder: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    repository, said = exported
    run, bundle = load_run(run_folder), load_bundle(repository, "tones")
    assert bundle.labels == LABELS
    assert bundle.modalities == run.modalities
    assert (bundle.clip_s, bundle.fusion, bundle.quality) == (run.clip_s, run.fusion, run.quality)
    assert bundle.metrics["test"] == {"fused": 0.25}
    assert bundle.metrics["corrupted"]["conditions"] == {"clean": {"accuracy": 0.9}}
    assert bundle.training["data_sha256"] == DATA_SHA256
    assert bundle.training["seed"] == 1
    assert bundle.decoder_version == 1, "of a run made before runs noted it"
    assert bundle.training["quality_report"]["audio"] == {"false_alarms": {"silent": 0, "frozen": 0}}
    compared = [(p["model"], p["against"], p["batch"]) for p in said["parity"]]
    encoders = [(f"tones_{m}", "torch", batch) for m in ("audio", "visual") for batch in (1, 3, 8)]
    whole = [("tones", "torch", batch) for batch in (1, 3, 8)]
    assert compared == [*encoders, ("tones_fusion", "numpy", 4 * 10), *whole]
    assert bundle.metrics["parity"] == said["parity"]
    for p in said["parity"]:
        assert (p["labels_differ"], p["clips"]) == (0, 10)
        assert p["differences"]["LOGITS"] < 1e-3
    outputs = {p["model"]: set(p["differences"]) for p in said["parity"]}
    assert outputs["tones_audio"] == {"LOGITS", "FEATURES"}
    assert outputs["tones_fusion"] == {"PROBABILITIES", "LOGITS", "CERTAINTY", "WEIGHTS"}


def test_exported_models_are_whole_and_say_nothing_of_the_machine(exported: tuple[Path, dict[str, Any]]) -> None:
    repository, _ = exported
    for path in repository.rglob("model.onnx"):
        assert [p.name for p in path.parent.iterdir()] == ["model.onnx"], "weights in files beside it"
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert ([o.version for o in model.opset_import], model.ir_version) == ([OPSET], IR_VERSION)
        assert b"site-packages" not in path.read_bytes()
        assert str(Path(__file__).resolve().parents[2]).encode() not in path.read_bytes()


def test_the_command_prints_what_it_wrote_and_then_version_two_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", alone(CONFIG["modalities"][1]), alarms={"frozen": 3})
    repository = tmp_path / "models"
    told = ["--description", "For us.", "--deadline-ms", "visual=750"]
    assert main(["export", str(run), "--repository", str(repository), "--name", "mine", *told]) == 0
    written = load_bundle(repository, "mine")
    assert (written.description, written.encoder("visual").deadline_ms) == ("For us.", 750)
    printed = capsys.readouterr().out
    assert "mine version 1" in printed
    assert "mine_fusion" in printed
    assert "mine (all)" in printed
    assert "warning: visual: the signal check takes 3 frozen of 10 training clips for unusable" in printed
    assert main(["export", str(run), "--repository", str(repository), "--name", "mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["version"]) == ("mine", 2)
    assert ["frozen" in warning for warning in document["warnings"]] == [True, False]
    assert "kept no votes" in document["warnings"][1]
    assert load_bundle(repository, "mine").version == 2
    assert load_bundle(repository, "mine").training["quality_report"]["visual"]["false_alarms"]["frozen"] == 3


def test_flow_and_no_fused_head(tmp_path: Path) -> None:
    flow = {
        "input": {"kind": "flow", "name": "motion", "frames": 2, "height": 16, "width": 16},
        "encoder": {"backbone": BACKBONE},
    }
    fusion = {"fused_head": False, "certainty": "margin", "temperature": 0.1}
    run = make_run(tmp_path / "run", {**alone(flow), "fusion": fusion})
    (run / "decoder.version").write_text("7\n")
    bundle = export_run(run, tmp_path / "models").bundle
    assert load_bundle(tmp_path / "models", "tones") == bundle
    assert bundle.decoder_version == 7, "of the rows it was trained on, whatever decodes here"
    assert (bundle.heads, bundle.fusion.certainty, bundle.fusion.temperature) == (("motion",), "margin", 0.1)


def test_a_chosen_fusion_is_exported_with_what_it_learned_and_what_it_beat(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    # Chosen without the fused head, though one was trained.
    spec = FusionSpec(
        certainty="reliability",
        temperature=0.1,
        fused_head=False,
        pooling="product",
        head_temperatures=(1.5, 0.8),
        answer_temperature=1.2,
    )
    rng = np.random.default_rng(4)
    learned = FusionParameters(tuple(random_reliability(rng, 8, len(LABELS)) for _ in range(2)))
    write_fusion(run, spec, learned, {"chosen": "reliability", "beat": {"max_prob": 0.2}, "families": ["white"]})
    exported = export_run(run, tmp_path / "models", description="Tones, for tests.", deadlines_ms={"visual": 350})
    bundle = load_bundle(tmp_path / "models", "tones")
    assert bundle == exported.bundle
    assert (bundle.fusion, bundle.heads, bundle.description) == (spec, ("audio", "visual"), "Tones, for tests.")
    assert bundle.selection == {"chosen": "reliability", "beat": {"max_prob": 0.2}, "families": ["white"]}
    assert [encoder.deadline_ms for encoder in bundle.encoders] == [2000, 350]
    loaded = load_run(run)
    feeds: dict[str, Any] = {"PRESENT": np.ones((10, 2), np.bool_)}
    features, logits = [], []
    for modality in loaded.modalities:
        with torch.no_grad():
            own = [output.numpy() for output in loaded.encoders[modality.name](torch.from_numpy(rows(modality, 10)))]
        feeds[features_input(modality.name)], feeds[logits_input(modality.name)] = own
        features.append(own[0])
        logits.append(own[1])
    expected = fuse(np.stack(logits, axis=1), feeds["PRESENT"], spec, learned, features)
    found = session(tmp_path / "models", bundle.fusion_model).run(["PROBABILITIES", "CERTAINTY"], feeds)
    np.testing.assert_allclose(found[0], expected.probabilities_BC, atol=1e-5)
    np.testing.assert_allclose(found[1], expected.certainty_BH, atol=1e-5)
    assert expected.certainty_BH.std() > 0.01


def test_a_chosen_fusion_that_is_damaged_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", alone(CONFIG["modalities"][1]))
    spec = FusionSpec(certainty="reliability", fused_head=False)
    rng = np.random.default_rng(4)
    write_fusion(run, spec, FusionParameters((random_reliability(rng, 5, len(LABELS)),)), {})
    with pytest.raises(BundleError, match=r"head 'visual' was learned for .* \(4, 5\), the bundle has \(4, 8\)"):
        export_run(run, tmp_path / "models")
    (run / "fusion.safetensors").write_bytes(b"of another choice")
    with pytest.raises(SetupError, match=r"is damaged: fusion\.safetensors is not the one fusion\.json names"):
        export_run(run, tmp_path / "models")
    write_fusion(run, FusionSpec(fused_head=False, head_temperatures=(1.0, 2.0)), FusionParameters(), {})
    assert not (run / "fusion.safetensors").exists()
    with pytest.raises(ConfigurationError, match=r"fusion\.head_temperatures has 2 entries, the heads are"):
        export_run(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_encoders_that_cannot_be_held_to_the_trained_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch and ONNX Runtime would agree: both run the code of today."""
    run = make_run(tmp_path / "run", alone(CONFIG["modalities"][0]))
    with monkeypatch.context() as patch:
        patch.setattr("dimml_training.models.spectrogram.CLIP_POWER_FLOOR", 1.0)
        with pytest.raises(SetupError, match="its audio encoder says other things"):
            export_run(run, tmp_path / "models")
    kept = safetensors.numpy.load_file(run / "samples.safetensors")
    del kept["logits.audio"]
    safetensors.numpy.save_file(kept, run / "samples.safetensors")
    with pytest.raises(SetupError, match=r"did not record what its encoders output .* Train it again"):
        export_run(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("visual", "give a modality and milliseconds above 0, such as audio=500"),
        ("visual=soon", "give a modality and milliseconds above 0"),
        ("visual=0", "give a modality and milliseconds above 0"),
        ("smell=500", "the run has no modality 'smell', only visual"),
    ],
)
def test_a_deadline_that_is_none_is_refused(
    one_eyed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    command = ["export", str(one_eyed), "--repository", str(tmp_path / "models"), "--deadline-ms", given]
    assert main(command) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "models").exists()


class BatchBlind(nn.Module):
    """Gives wrong logits from the fourth row of a batch on: what a batch size baked into a graph looks like."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.encoder(tensor)
        late = torch.cumsum(torch.ones_like(logits), dim=0) > 3
        return features, torch.where(late, logits + torch.tensor([0.0, 0.0, 0.0, 0.02]), logits)


def test_a_model_that_is_wrong_only_at_batch_8_writes_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The exported graph is another module's: the comparison itself is real.
    monkeypatch.setattr(
        "dimml_export.export.encoder_model", lambda encoder, spec: encoder_model(BatchBlind(encoder), spec)
    )
    with pytest.raises(BundleError, match=r"tones_audio: at batch 8 LOGITS differs by up to 0\.02 \(at most 0\.001\)"):
        export_run(run_folder, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def shifted(model: onnx.ModelProto, output: str, by: float, *, only_alone: bool = False) -> onnx.ModelProto:
    """The model with ``by`` added to an output: in every batch, or in batches of one row only."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["unshifted" if name == output else name for name in names]
    make = onnx.helper.make_node
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(by), "by"))
    shift = "by"
    if only_alone:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
        model.graph.node.append(make("Shape", ["PRESENT"], ["rows"], end=1))
        model.graph.node.append(make("Equal", ["rows", "one"], ["is_alone"]))
        model.graph.node.append(make("Cast", ["is_alone"], ["alone"], to=onnx.TensorProto.FLOAT))
        model.graph.node.append(make("Mul", ["alone", "by"], ["shift"]))
        shift = "shift"
    model.graph.node.append(make("Add", ["unshifted", shift], [output]))
    return model


def test_a_chain_that_is_wrong_though_its_parts_are_right_writes_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dimml_export.export.fusion_model",
        lambda *given: shifted(fusion_model(*given), "LOGITS", 0.02, only_alone=True),
    )
    with pytest.raises(BundleError, match=r"^tones: at batch 1 LOGITS differs by up to 0\.02 \(at most 0\.001\)"):
        export_run(run_folder, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_chain_whose_fused_head_is_another_is_refused(
    run_folder: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    repository, _ = exported
    run, bundle = load_run(run_folder), load_bundle(repository, "tones")
    models = {m: onnx.load(bundle.model_file(repository, f"tones_{m}")) for m in ("audio", "visual", "fusion")}
    outputs = {m: check_encoder(m, run.encoders[m], models[m], run.samples[m])[0] for m in run.encoders}
    head = run.fused_head
    assert head is not None
    assert len(check_chain(bundle, models, models["fusion"], clips=run.samples, outputs=outputs, fused_head=head)) == 3
    with torch.no_grad():
        head.bias += torch.tensor([0.0, 0.0, 0.0, 0.05])
    with pytest.raises(BundleError, match="tones: at batch 1 LOGITS differs"):
        check_chain(bundle, models, models["fusion"], clips=run.samples, outputs=outputs, fused_head=head)


@pytest.mark.parametrize(
    ("output", "refused", "taken"),
    [("PROBABILITIES", 3e-4, 5e-5), ("CERTAINTY", 3e-4, 5e-5), ("WEIGHTS", 3e-4, 5e-5), ("LOGITS", 2e-3, 5e-4)],
)
def test_every_output_of_the_fusion_has_a_tolerance_that_large_logits_do_not_loosen(
    run_folder: Path, exported: tuple[Path, dict[str, Any]], output: str, refused: float, taken: float
) -> None:
    repository, _ = exported
    run, bundle = load_run(run_folder), load_bundle(repository, "tones")
    assert run.fused_head is not None
    head = [parameter.detach().numpy() for parameter in (run.fused_head.weight, run.fused_head.bias)]
    rng = np.random.default_rng(2)
    outputs = {
        name: Outputs(
            rng.standard_normal((6, 8)).astype(np.float32),
            # In the fifties, with one class well ahead.
            (50.0 * np.eye(4)[[0, 1, 2, 3, 0, 1]] + rng.standard_normal((6, 4))).astype(np.float32),
        )
        for name in run.encoders
    }
    found = check_fusion(bundle, shifted(fusion_model(bundle, *head), output, taken), outputs, *head)
    assert found.differences[output] == pytest.approx(taken, rel=0.2)
    with pytest.raises(BundleError, match=f"tones_fusion: at batch 24 {output} differs by up to"):
        check_fusion(bundle, shifted(fusion_model(bundle, *head), output, refused), outputs, *head)


def test_parity_fails_on_nan_and_on_labels(run_folder: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    run = load_run(run_folder)
    encoder, clips = run.encoders["audio"], run.samples["audio"]
    model = onnx.load(exported[0] / "tones_audio" / "1" / "model.onnx")
    with pytest.raises(BundleError, match="at batch 1 LOGITS differs by up to nan"):
        check_encoder("audio", encoder, model, np.full_like(clips, np.nan))
    with pytest.raises(BundleError, match="no sample clips"):
        check_encoder("audio", encoder, model, clips[:0])
    with torch.no_grad():
        encoder.head.weight.neg_()  # type: ignore[union-attr,operator]
    with pytest.raises(BundleError, match=r"at batch 1 .* \d+ labels differ"):
        check_encoder("audio", encoder, model, clips)


def test_what_is_wrong_with_the_run_or_the_name_is_said_in_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SetupError, match="there is no run directory"):
        export_run(tmp_path / "nowhere", tmp_path / "models")
    with pytest.raises(ConfigurationError, match="the bundle's name: String should match"):
        export_run(run_folder, tmp_path / "models", name="My Bundle")
    assert main(["export", str(tmp_path), "--repository", str(tmp_path / "models")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "models").exists()


def test_a_joint_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", {**CONFIG, "stage1": {**CONFIG["stage1"], "objective": "joint"}})
    assert main(["export", str(run), "--repository", str(tmp_path / "models")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "is a joint training" in said
    assert "export one trained with stage1.objective: detached" in said
    assert not (tmp_path / "models").exists()


def test_a_taken_name_is_refused_and_the_old_bundle_stays(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    repository, _ = exported
    other = make_run(tmp_path / "other", alone(CONFIG["modalities"][0]))
    said: list[str] = []
    with pytest.raises(BundleError, match=r"export under another name \(--name\)"):
        export_run(other, repository, say=said.append)
    assert said == [], "refused only after minutes of exporting"
    assert bundle_names(repository) == ["tones"]
    assert load_bundle(repository, "tones").version == 1
