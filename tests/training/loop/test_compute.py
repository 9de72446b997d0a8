"""Precision and compilation change how training is computed, never what is kept; what cannot be done is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dimml.errors import ConfigurationError, SetupError
from dimml.repository import load_bundle
from dimml_export.export import export_run
from dimml_training.config import ComputeConfig, TrainConfig, parse_config
from dimml_training.data.loader import batches
from dimml_training.data.prepare import prepare
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.distributed import ALONE, Ranks
from dimml_training.lightning.trainer import training_device
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.tiny_training import document, epochs


def computed(clips: Path, **compute: Any) -> TrainConfig:
    return parse_config(document(clips) | {"compute": compute}, "test")


def sound_without_chance(clips: Path, **compute: Any) -> TrainConfig:
    """One encoder, since every one takes the compiler 10 s or more, and nothing random in a step."""
    content = document(clips) | {"compute": compute}
    (sound,) = content["modalities"] = content["modalities"][:1]
    del sound["augment"], sound["encoder"]["dropout"], sound["encoder"]["spectrogram"]["mask_time"]
    return parse_config(content, "test")


@pytest.mark.slow(reason="trains and exports")
def test_bf16_trains_and_exports_like_fp32(clips: Path, cache: Path, tmp_path: Path, finished: Path) -> None:
    train(computed(clips, precision="bf16-mixed"), tmp_path / "run", cache_dir=cache)
    run = load_run(tmp_path / "run")
    assert {w.dtype for e in run.encoders.values() for w in e.state_dict().values() if w.is_floating_point()} == {
        torch.float32
    }
    half, full = ([float(line["train_loss"]) for line in epochs(out)[:4]] for out in (tmp_path / "run", finished))
    assert half != full, "it was not computed in another precision, or this test shows nothing"
    assert half == pytest.approx(full, rel=0.1)
    exported = export_run(tmp_path / "run", tmp_path / "repository")
    assert load_bundle(tmp_path / "repository", exported.bundle.name).labels == run.labels


def test_only_the_encoders_of_a_training_step_are_half(clips: Path, cache: Path) -> None:
    config = computed(clips, precision="bf16-mixed")
    data = prepare(config, cache)
    torch.manual_seed(0)
    module = DetachedEncoders(config, 2, data.splits["train"].rows)
    seen: dict[str, torch.dtype] = {}

    def note(name: str) -> Any:
        def hook(_: Any, given: Any, found: Tensor) -> None:
            seen[name] = found.dtype

        return hook

    sound = module.encoder("audio").embed
    sound.get_submodule("spectrogram").register_forward_hook(note("spectrogram"))
    next(m for m in sound.get_submodule("backbone").modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(
        note("convolution")
    )
    rows = next(iter(batches(data.splits["train"].rows, 4))).rows
    module.train()
    assert {t.dtype for t in module.encode("audio", rows["audio"])} == {torch.float32}
    assert seen == {"spectrogram": torch.float32, "convolution": torch.bfloat16}
    module.eval()
    module.encode("audio", rows["audio"])
    assert seen == {"spectrogram": torch.float32, "convolution": torch.float32}


@pytest.mark.slow(reason="torch.compile")
@pytest.mark.timeout(300)  # the compiler, on a busy machine
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_step_is_the_eager_one(clips: Path, cache: Path) -> None:
    found = []
    for compiled in (False, True):
        config = sound_without_chance(clips, compile=compiled)
        train_rows = prepare(config, cache).splits["train"].rows
        torch.manual_seed(0)
        module = DetachedEncoders(config, 2, train_rows)
        batch = next(iter(batches(train_rows, 4)))
        module.train()
        parts = module.losses(batch)
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        found.append((parts, gradients, module.state_dict()))
    (eager, eager_gradients, eager_state), (fast, fast_gradients, fast_state) = found
    assert list(fast_state) == list(eager_state)
    assert not any("_orig_mod" in name for name in fast_state)
    for name, part in eager.items():
        assert float(fast[name].detach()) == pytest.approx(float(part.detach()), rel=1e-4), name
    for name, gradient in eager_gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-3, atol=1e-4)


def test_what_this_machine_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("about machines without a GPU")
    assert training_device(ComputeConfig(), ALONE) == torch.device("cpu")
    for field, value in (("accelerator", "gpu"), ("precision", "16-mixed"), ("sync_batchnorm", True)):
        config = ComputeConfig.model_validate({field: value})
        with pytest.raises(ConfigurationError, match=f"compute.{field}") as raised:
            training_device(config, Ranks(0, 2, 2))
        assert raised.value.field == f"compute.{field}"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match=r"compute\.compile needs a C\+\+ compiler"):
        training_device(ComputeConfig(compile=True), ALONE)


def test_nothing_is_written_where_the_device_is_missing(clips: Path, cache: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("about machines without a GPU")
    with pytest.raises(ConfigurationError, match="CUDA sees no GPU"):
        train(computed(clips, accelerator="gpu"), tmp_path / "run", cache_dir=cache)
    assert not (tmp_path / "run").exists()
