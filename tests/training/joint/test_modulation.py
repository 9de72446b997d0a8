"""The rivals' heads and balanced gradients, each against an independent statement of its formula."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from dimml.errors import ConfigurationError
from dimml_training.config import JointConfig, parse_config
from dimml_training.data.loader import Batch
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.joint.encoders import JointEncoders
from dimml_training.joint.modulation import ogm_coefficients, ogm_modulate, pareto_gradients, pareto_weights
from dimml_training.lightning.encoder_module import EncoderTraining, build_optimiser
from dimml_training.models.joint_head import ConcatHead, FilmHead, GatedHead, SplitHead, SumHead, build_joint_head
from support.three_modalities import batch_of, random_clips, three_modalities

Array = npt.NDArray[np.float64]


def array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().double().numpy()
    return found


def linear(layer: nn.Module, x: Array) -> Array:
    assert isinstance(layer, nn.Linear)
    found: Array = x.dot(array(layer.weight).T) + array(layer.bias)
    return found


def logits_of(head: nn.Module, f: list[Array]) -> Array:
    """The four heads in numpy, as fusion_modules.py of OGM-GE has them for two modalities."""
    if isinstance(head, ConcatHead):
        return linear(head.linear, np.concatenate(f, axis=1))
    if isinstance(head, SumHead):
        return np.asarray(sum(linear(layer, x) for layer, x in zip(head.linears, f, strict=True)))
    if isinstance(head, FilmHead):
        x = f[-1]
        for layer, given in zip(head.modulations, f, strict=False):
            modulation = linear(layer, given)
            x = modulation[:, : x.shape[1]] * x + modulation[:, x.shape[1] :]
        return linear(head.out, x)
    assert isinstance(head, GatedHead)
    x = linear(head.projections[-1], f[-1])
    for layer, given in zip(head.projections, f[:-1], strict=False):
        x = x / (1.0 + np.exp(-linear(layer, given)))
    return linear(head.out, x)


@pytest.mark.parametrize("fusion", ["concat", "sum", "film", "gated"])
@pytest.mark.parametrize("widths", [[4, 6], [3, 4, 5], [4]])
def test_heads_compute_their_formula(fusion: Any, widths: list[int]) -> None:
    torch.manual_seed(0)
    head = build_joint_head(fusion, widths, 3)
    features = [torch.randn(7, width) for width in widths]
    np.testing.assert_allclose(array(head(features)), logits_of(head, [array(f) for f in features]), atol=1e-5)
    features[0] = torch.zeros_like(features[0])  # absent
    assert torch.isfinite(head(features)).all()
    if isinstance(head, SplitHead):
        torch.testing.assert_close(torch.stack(head.parts(features)).sum(dim=0), head(features))


@pytest.mark.parametrize("modalities", [2, 3])
def test_ogm_coefficients_equal_plain_loops(modalities: int) -> None:
    rng = np.random.default_rng(modalities)
    logits = rng.normal(size=(modalities, 9, 4)) * np.array([3.0, 1.0, 1.0])[:modalities, None, None]
    labels = rng.integers(0, 4, 9)
    logits[0, np.arange(9), labels] += 3.0  # the first modality is ahead
    scores = [
        sum(np.exp(logits[m, i, labels[i]]) / sum(np.exp(logits[m, i, c]) for c in range(4)) for i in range(9))
        for m in range(modalities)
    ]
    expected = []
    for m in range(modalities):
        others = [scores[k] for k in range(modalities) if k != m]
        ratio = scores[m] / (sum(others) / len(others))
        expected.append(1.0 - np.tanh(0.8 * ratio) if ratio > 1.0 else 1.0)
    assert expected[0] < 0.5
    assert expected.count(1.0) >= 1
    found = ogm_coefficients(list(torch.from_numpy(logits)), torch.from_numpy(labels), 0.8)
    assert found.tolist() == pytest.approx(expected)


def test_one_modality_has_nobody_to_be_ahead_of() -> None:
    assert ogm_coefficients([torch.randn(5, 3)], torch.tensor([0, 1, 2, 0, 1]), 0.8).tolist() == [1.0]


def test_ogm_scales_convolutions_alone_and_adds_noise_of_their_deviation() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 64, 5), nn.BatchNorm2d(64), nn.Linear(8, 8))
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before = {key: value.grad.clone() for key, value in layers.named_parameters() if value.grad is not None}
    ogm_modulate(layers, torch.tensor(0.25))
    for key, parameter in layers.named_parameters():
        assert parameter.grad is not None
        if key != "0.weight":
            assert torch.equal(parameter.grad, before[key]), key
    gradient = layers[0].weight.grad
    assert isinstance(gradient, Tensor)
    noise = gradient - 0.25 * before["0.weight"]
    assert float(noise.std() / before["0.weight"].std()) == pytest.approx(1.0, abs=0.05)
    assert abs(float(noise.mean())) < 0.05


@pytest.mark.parametrize("angle", [100.0, 130.0, 175.0])
@pytest.mark.parametrize("length", [0.2, 1.0, 6.0])
def test_pareto_weights_solve_the_quadratic_programme(angle: float, length: float) -> None:
    """``min_a |a·g_joint + (1-a)·g_own|`` over 0 to 1, by trying every a."""
    rng = np.random.default_rng(1)
    plane, _ = np.linalg.qr(rng.normal(size=(30, 2)))
    joint = plane[:, 0]
    own = length * (np.cos(np.radians(angle)) * plane[:, 0] + np.sin(np.radians(angle)) * plane[:, 1])
    shares = np.linspace(0.0, 1.0, 20_001)
    lengths = np.linalg.norm(shares[:, None] * joint + (1.0 - shares[:, None]) * own, axis=1)
    solved = float(shares[lengths.argmin()])
    split = [
        (torch.from_numpy(joint[:10]), torch.from_numpy(own[:10])),
        (torch.from_numpy(joint[10:]), torch.from_numpy(own[10:])),
    ]
    found = pareto_weights([j for j, _ in split], [o for _, o in split])
    assert found == pytest.approx((solved, 1.0 - solved), abs=1e-4)
    mixed = found[0] * joint + found[1] * own
    assert mixed @ joint > 0.0  # a step along it lowers both losses
    assert mixed @ own > 0.0


def test_gradients_that_agree_weigh_the_same() -> None:
    assert pareto_weights([torch.tensor([1.0, 0.0])], [torch.tensor([5.0, 3.0])]) == (0.5, 0.5)
    assert pareto_weights([torch.zeros(2)], [torch.zeros(2)]) == (0.5, 0.5)


def test_pareto_gradients_are_never_shorter_than_the_sum() -> None:
    joint = [torch.tensor([1.0, 0.0]), torch.tensor([2.0])]
    own = [torch.tensor([-3.0, 1.0]), torch.tensor([0.5])]
    a, b = pareto_weights(joint, own)
    assert a > 0.5
    found = pareto_gradients(joint, own, 1.5)
    for gradient, j, o in zip(found, joint, own, strict=True):
        mixed, summed = array(2 * (a * j + b * o)), array(j + o)
        stretch = max(1.0, float(np.linalg.norm(summed) / np.linalg.norm(mixed)))
        np.testing.assert_allclose(array(gradient), 1.5 * stretch * mixed, rtol=1e-5)
    assert not pareto_gradients([torch.zeros(2)], [torch.zeros(2)], 1.5)[0].any()


def joint_module(**joint: object) -> JointEncoders:
    config = three_modalities(objective="joint", joint=joint)
    torch.manual_seed(0)
    return JointEncoders(config, 3, random_clips(config, 6))


def stepped(module: EncoderTraining) -> dict[str, Tensor]:
    """Gradients of one batch, as the optimiser gets them."""
    rows, labels = batch_of(module.config, 6), torch.arange(6) % 3
    torch.manual_seed(1)
    torch.autograd.backward(torch.stack(list(module.losses(Batch(rows, labels)).values())).sum())
    torch.manual_seed(2)
    module.on_before_optimizer_step(build_optimiser(module.parameters(), module.config.stage1.optimiser))
    return {key: value.grad.clone() for key, value in module.named_parameters() if value.grad is not None}


def test_mmpareto_replaces_the_gradients_of_the_encoders_alone() -> None:
    module = joint_module(modulation="mmpareto")
    rows, labels = batch_of(module.config, 6), torch.arange(6) % 3
    cross_entropy = nn.functional.cross_entropy
    other = copy.deepcopy(module)
    encoded = {name: other.encoder(name)(rows[name]) for name in other.names}
    joint_loss = cross_entropy(other.joint_head([features for features, _ in encoded.values()]), labels)
    found = stepped(module)
    conflicts = 0
    for name in other.names:
        parameters = dict(other.encoder(name).embed.named_parameters())
        joint = torch.autograd.grad(joint_loss, list(parameters.values()), retain_graph=True)
        own = torch.autograd.grad(cross_entropy(encoded[name][1], labels), list(parameters.values()), retain_graph=True)
        # Written out: one long vector per loss for the weights, one tensor at a time for the length.
        g_joint, g_own = (np.concatenate([array(g).ravel() for g in gradients]) for gradients in (joint, own))
        a = 0.5
        if g_joint @ g_own <= 0.0:
            conflicts += 1
            a = float(np.clip(g_own @ (g_own - g_joint) / np.square(g_joint - g_own).sum(), 0.0, 1.0))
        for key, j, o in zip(parameters, joint, own, strict=True):
            mixed = 2.0 * (a * array(j) + (1.0 - a) * array(o))
            stretch = max(1.0, float(np.linalg.norm(array(j + o)) / np.linalg.norm(mixed)))
            gradient = array(found[f"encoders.{name}.embed.{key}"])
            np.testing.assert_allclose(gradient, 1.5 * stretch * mixed, rtol=1e-3, atol=1e-6, err_msg=key)
        head = torch.autograd.grad(
            cross_entropy(encoded[name][1], labels), other.encoder(name).head.weight, retain_graph=True
        )
        torch.testing.assert_close(found[f"encoders.{name}.head.weight"], head[0])
    weight = torch.autograd.grad(joint_loss, list(other.joint_head.parameters()))[0]
    torch.testing.assert_close(found["joint_head.linear.weight"], weight)


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_ogm_slows_the_modality_that_is_ahead(fusion: str) -> None:
    module = joint_module(modulation="ogm_ge", fusion=fusion)
    with torch.no_grad():
        for parameter in module.joint_head.parameters():
            parameter.mul_(20.0)  # so that the modalities' shares differ
    other = copy.deepcopy(module)
    rows, labels = batch_of(module.config, 6), torch.arange(6) % 3
    features = [other.encoder(name)(rows[name])[0] for name in other.names]
    assert isinstance(other.joint_head, SplitHead)
    coefficients = ogm_coefficients(other.joint_head.parts(features), labels, 0.8)
    assert float(coefficients.min()) < 0.9
    torch.autograd.backward(nn.functional.cross_entropy(other.joint_head(features), labels))
    found = stepped(module)
    torch.manual_seed(2)
    for name, coefficient in zip(other.names, coefficients, strict=True):
        for key, parameter in other.encoder(name).named_parameters():
            expected = parameter.grad
            if parameter.dim() > 2:
                assert expected is not None
                noise = torch.randn_like(expected) * (expected.std() + 1e-8)
                expected = coefficient * expected + noise
            if expected is None:
                assert f"encoders.{name}.{key}" not in found, "own heads are not trained"
            else:
                torch.testing.assert_close(found[f"encoders.{name}.{key}"], expected)


def test_ogm_ends_after_its_share_of_the_epochs() -> None:
    plain, ended = joint_module(), joint_module(modulation="ogm_ge", ogm_share=0.0)
    first, second = stepped(plain), stepped(ended)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("modulation", [None, "none", "ogm_ge", "mmpareto"])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_one_kernel_optimiser_steps_as_the_plain_one(modulation: str | None, kind: str) -> None:
    """It does not look at the layout of a gradient, so a gradient of another layout than its weight's goes wrong."""
    optimiser = {"kind": kind, "lr": 0.01}
    if modulation is None:
        config = three_modalities(optimiser=optimiser)
        torch.manual_seed(0)
        module: EncoderTraining = DetachedEncoders(config, 3, random_clips(config, 6))
    else:
        config = three_modalities(optimiser=optimiser, objective="joint", joint={"modulation": modulation})
        torch.manual_seed(0)
        module = JointEncoders(config, 3, random_clips(config, 6))
    assert any(not p.is_contiguous() for p in module.parameters()), "channels last, or this test shows nothing"
    gradients = stepped(module)
    plain = copy.deepcopy(module)
    for key, parameter in plain.named_parameters():
        parameter.grad = gradients[key].clone() if key in gradients else None
    stage = config.stage1.optimiser
    rule: torch.optim.Optimizer
    if kind == "adamw":
        rule = torch.optim.AdamW(plain.parameters(), lr=stage.lr, weight_decay=stage.weight_decay, foreach=False)
    else:
        rule = torch.optim.SGD(
            plain.parameters(), lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay, foreach=False
        )
    rule.step()
    build_optimiser(module.parameters(), stage).step()
    for (key, found), expected in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=key)


def test_modulation_that_needs_a_split_refuses_a_head_without() -> None:
    with pytest.raises(ConfigurationError, match=r"stage1\.joint.*film does not allow; take concat or sum"):
        three_modalities(objective="joint", joint={"fusion": "film", "modulation": "ogm_ge"})
    assert JointConfig(fusion="gated", modulation="mmpareto").pareto_gamma == 1.5


def test_two_gradients_of_one_batch_are_for_plain_encoders_alone() -> None:
    config = three_modalities(objective="joint", joint={"modulation": "mmpareto"}).model_dump()
    with pytest.raises(ConfigurationError, match=r"mmpareto .*; set compute\.compile: false"):
        parse_config(config | {"compute": {"compile": True}}, "test")
    with pytest.raises(ConfigurationError, match="mmpareto compares gradients, which 16-mixed scales up"):
        parse_config(config | {"compute": {"precision": "16-mixed"}}, "test")


def test_a_joint_training_needs_no_warm_up() -> None:
    assert three_modalities(objective="joint", epochs=1, warmup_epochs=1).stage1.epochs == 1
    with pytest.raises(ConfigurationError, match="warmup_epochs"):
        three_modalities(epochs=1, warmup_epochs=1)
