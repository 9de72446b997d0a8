"""Dimension separation and DUC against plain loops written from docs/adr/0001; no gradient between encoders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dimml_training.data.loader import Batch, ClipRows
from dimml_training.detached import dimension_separation
from dimml_training.detached.dimension_separation import dimension_accuracy, effective_dimensions
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.detached.fused_head import concatenated_features, train_fused_head
from dimml_training.detached.losses import duc_loss
from support.looped_duc import looped_duc
from support.three_modalities import batch_of, random_clips, state_of, three_modalities


def looped_accuracy(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> list[float]:
    """docs/adr/0001: in one dimension alone, classify each sample by its nearest class mean."""
    accuracies = []
    for d in range(features.shape[1]):
        means = {int(c): float(np.mean(features[labels == c, d])) for c in set(labels)}
        right = 0
        for sample, label in zip(features, labels, strict=True):
            nearest = min(sorted(means), key=lambda c: abs(float(sample[d]) - means[c]))
            right += nearest == label
        accuracies.append(right / len(labels))
    return accuracies


@pytest.mark.parametrize("chunk", [2**24, 100])
def test_separation_equals_a_plain_loop(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimension_separation, "CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 90)
    # Dimensions tell the classes apart more and less well.
    features = (rng.standard_normal((90, 12)) + np.outer(labels, np.linspace(0, 2, 12))).astype(np.float32)
    expected = looped_accuracy(features, labels)
    found = dimension_accuracy(torch.from_numpy(features), torch.from_numpy(labels), 4)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    effective = effective_dimensions(torch.from_numpy(features), torch.from_numpy(labels), 4)
    assert effective.tolist() == [a > np.mean(expected) for a in expected]
    assert 0 < int(effective.sum()) < 12


def test_a_class_without_samples_is_nobodys_nearest() -> None:
    # The class that is missing would have mean 0, in the middle of everything.
    features = torch.tensor([[-1.0], [-1.2], [1.0], [1.2], [0.1]])
    accuracy = dimension_accuracy(features, torch.tensor([0, 0, 2, 2, 2]), 3)
    assert accuracy.tolist() == pytest.approx([1.0])


def test_equal_dimensions_are_none_of_them_effective() -> None:
    features = torch.randn(21, 1).repeat(1, 7)
    assert not effective_dimensions(features, torch.arange(21) % 3, 3).any()


@pytest.mark.parametrize("modalities", [2, 3])
def test_duc_equals_a_plain_loop(modalities: int) -> None:
    generator = torch.Generator().manual_seed(modalities)
    features = torch.randn(modalities, 6, 9, generator=generator, dtype=torch.float64)
    effective = torch.rand(modalities, 9, generator=generator) < 0.5
    expected = looped_duc(features.numpy(), effective.numpy(), 3.0)
    assert expected > 0.1
    assert duc_loss(features, effective, 3.0).item() == pytest.approx(expected, rel=1e-9)


def test_duc_without_separation_runs_on_all_dimensions() -> None:
    features = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Pair by pair, with a teacher that is effective everywhere and a student that is nowhere.
    expected = sum(
        looped_duc(features[[t, s]].numpy(), np.array([[True] * 9, [False] * 9]), 3.0)
        for t in range(3)
        for s in range(3)
        if t != s
    )
    assert duc_loss(features, None, 3.0).item() == pytest.approx(expected, rel=1e-9)


def test_duc_moves_the_student_alone_and_only_on_private_dimensions() -> None:
    features = torch.randn(2, 5, 4, requires_grad=True)
    # Effective in modality 0 alone: P(0→1) = {1}, P(1→0) is empty.
    effective = torch.tensor([[True, True, False, False], [True, False, False, False]])
    torch.autograd.backward(duc_loss(features, effective, 1.0))
    assert features.grad is not None
    assert not features.grad[0].any()
    assert features.grad[1, :, 1].abs().min() > 0
    assert not features.grad[1, :, [0, 2, 3]].any()


def test_duc_without_private_dimensions_is_zero_with_zero_gradient() -> None:
    features = torch.randn(3, 5, 4, requires_grad=True)
    for effective in (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)):
        loss = duc_loss(features, effective, 1.0)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, features)
        assert not gradient.any()


def test_no_modalitys_loss_reaches_another_encoder() -> None:
    """Each modality's part, own and shared head and DUC as a student, leaves other encoders' gradients exactly 0."""
    config = three_modalities()
    torch.manual_seed(0)
    empty = ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64))
    module = DetachedEncoders(config, 3, empty)
    module.effective_MD.copy_(torch.rand(module.effective_MD.shape, generator=torch.Generator().manual_seed(3)) < 0.5)
    module.separated.fill_(True)
    rows, labels = batch_of(config, 6), torch.tensor([0, 1, 2, 0, 1, 2])

    def gradients() -> dict[str, torch.Tensor]:
        module.zero_grad()
        torch.autograd.backward(torch.stack(list(module.losses(Batch(rows, labels)).values())).sum())
        return {key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None}

    before = gradients()
    assert all(before[f"encoders.{name}.head.weight"].any() for name in module.names)
    # The whole loss again, but with each encoder's own input changed: what another encoder's gradient owes to that
    # input can only be its value as a detached teacher, so without DUC it must not move at all.
    module.separated.fill_(False)
    alone = gradients()
    for changed in module.names:
        kept = rows[changed]
        rows[changed] = kept.flip(0)
        for key, gradient in gradients().items():
            other = key.startswith("encoders.") and not key.startswith(f"encoders.{changed}.")
            assert not other or torch.equal(gradient, alone[key]), key
        rows[changed] = kept
    # And directly: the graph of one modality's part of the loss holds no parameter of another one.
    module.separated.fill_(True)
    encoded = {name: module.encoder(name)(rows[name]) for name in module.names}
    for index, name in enumerate(module.names):
        others = [p for n in module.names if n != name for p in module.encoder(n).parameters()]
        student = torch.zeros_like(module.effective_MD)
        student[:index], student[index + 1 :] = True, True  # everyone else teaches, this one alone learns
        features_MBD = torch.stack([encoded[n][0] for n in module.names])
        features, logits = encoded[name]
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (
            cross_entropy(logits, labels)
            + cross_entropy(module.shared_head(features), labels)
            + duc_loss(features_MBD, student, 5.0)
        )
        found = torch.autograd.grad(loss, others, retain_graph=True, allow_unused=True)
        assert all(gradient is None or not gradient.any() for gradient in found)
        own = torch.autograd.grad(loss, list(module.encoder(name).parameters()), retain_graph=True)
        assert any(gradient.any() for gradient in own)


def test_losses_are_the_weighted_sum_of_the_design() -> None:
    config = three_modalities(lambda_shared=0.5, lambda_duc=2.0)
    torch.manual_seed(0)
    empty = ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64))
    module = DetachedEncoders(config, 3, empty).eval()
    module.effective_MD[:, ::2] = torch.tensor([[True], [False], [True]])
    rows, labels = batch_of(config, 4), torch.tensor([0, 1, 2, 0])
    assert module.losses(Batch(rows, labels))["duc"].item() == 0.0, "DUC waits for the separation"
    module.separated.fill_(True)
    parts = module.losses(Batch(rows, labels))
    own = shared = 0.0
    features = []
    for name in module.names:
        f, z = module.encoder(name)(rows[name])
        features.append(f.detach().double().numpy())
        for i, y in enumerate(labels):
            own -= torch.log_softmax(z[i], 0)[y].item() / 4
            shared -= torch.log_softmax(module.shared_head(f[i]), 0)[y].item() / 4
    assert parts["own"].item() == pytest.approx(own, rel=1e-5)
    assert parts["shared"].item() == pytest.approx(0.5 * shared, rel=1e-5)
    duc = looped_duc(np.stack(features), module.effective_MD.numpy(), 5.0)
    assert parts["duc"].item() == pytest.approx(2.0 * duc, rel=1e-5)


def test_separation_looks_at_the_training_set_in_evaluation_mode() -> None:
    config = three_modalities()
    torch.manual_seed(0)
    clips = random_clips(config, 30)
    module = DetachedEncoders(config, 3, clips).train()
    with torch.no_grad():
        for name in module.names:
            module.encoder(name)(torch.from_numpy(clips.rows(name, slice(None))))  # moves the batch statistics
    before = state_of(module.encoders)
    module.separate()
    after = module.encoders.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert module.training
    module.eval()
    for index, name in enumerate(module.names):
        features, _ = module.encoder(name)(torch.from_numpy(clips.rows(name, slice(None))))
        accuracy = looped_accuracy(features.detach().numpy(), clips.labels)
        # A sample halfway between two means may fall to either in float32; such dimensions are not judged here.
        clear = np.abs(accuracy - np.mean(accuracy)) > 0.05
        assert clear.any()
        expected = np.array(accuracy) > np.mean(accuracy)
        np.testing.assert_array_equal(module.effective_MD[index].numpy()[clear], expected[clear])


def test_stage_2_leaves_the_encoders_as_they_are() -> None:
    config = three_modalities()
    torch.manual_seed(0)
    clips = random_clips(config, 12)
    encoders = torch.nn.ModuleDict(dict(DetachedEncoders(config, 3, clips).encoders.items())).eval()
    before = state_of(encoders)
    rows: list[dict[str, float]] = []
    head = train_fused_head(config, dict(encoders.items()), 3, train=clips, validation=clips, on_epoch=rows.append)
    after = encoders.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert (head.in_features, head.out_features, len(rows)) == (24, 3, config.stage2.epochs)
    with torch.no_grad():
        features = concatenated_features(dict(encoders.items()), batch_of(config, 12))
        accuracy = float((head(features).argmax(dim=1).numpy() == clips.labels).mean())
    assert accuracy == pytest.approx(max(row["val_accuracy_fused"] for row in rows))
