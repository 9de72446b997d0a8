"""Clips that lack a modality in a step: everything equals what it is on the rows that are there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimml_training.data.loader import Batch, ClipRows, without_lone_rows
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.detached.fused_head import train_fused_head
from dimml_training.detached.losses import duc_loss
from support.looped_duc import looped_duc
from support.three_modalities import batch_of, random_clips, state_of, three_modalities


def holes(modalities: int, batch: int, seed: int) -> torch.Tensor:
    """Which samples have which modality; each has one at least."""
    present = torch.rand(modalities, batch, generator=torch.Generator().manual_seed(seed)) < 0.6
    present[0] |= ~present.any(dim=0)
    return present


@pytest.mark.parametrize("modalities", [2, 3])
def test_duc_with_holes_is_that_of_the_samples_that_have_both(modalities: int) -> None:
    generator = torch.Generator().manual_seed(modalities)
    features = torch.randn(modalities, 9, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    effective = torch.rand(modalities, 7, generator=generator) < 0.5
    present = holes(modalities, 9, modalities)
    loss = duc_loss(features, effective, 3.0, present_MB=present)
    expected = 0.0
    for t in range(modalities):
        for s in range(modalities):
            both = torch.nonzero(present[t] & present[s])[:, 0]
            if t != s and len(both) >= 2:
                private = torch.stack([effective[t] & ~effective[s], torch.zeros(7, dtype=torch.bool)])
                expected += looped_duc(features.detach()[[t, s]][:, both].numpy(), private.numpy(), 3.0)
    assert 0.1 < expected == pytest.approx(loss.item(), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, features)
    assert torch.isfinite(gradient).all()
    assert not gradient[~present].any()
    # What stands where a modality is absent makes no difference.
    other = torch.where(present[:, :, None], features.detach(), torch.full((), 1e3, dtype=torch.float64))
    assert duc_loss(other, effective, 3.0, present_MB=present).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("both", [0, 1])
def test_duc_of_fewer_than_two_samples_is_zero(both: int) -> None:
    features = torch.randn(2, 4, 5, requires_grad=True)
    present = torch.tensor([[True] * 4, [False] * (4 - both) + [True] * both])
    effective = torch.tensor([[True] * 5, [False] * 5])
    loss = duc_loss(features, effective, 1.0, present_MB=present)
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, features)
    assert not gradient.any()
    assert torch.isfinite(gradient).all()


def test_duc_with_holes_in_parts_is_duc_of_the_whole() -> None:
    """Two processes of four samples: the mean of their losses, each against everybody's teachers."""
    features = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    effective = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    present = holes(3, 8, 2)
    assert present[:, :4].sum() != present[:, 4:].sum()
    whole = duc_loss(features, effective, 2.0, present_MB=present)
    parts = [
        duc_loss(
            features[:, first : first + 4],
            effective,
            2.0,
            teachers_MND=features,
            first=first,
            present_MB=present[:, first : first + 4],
            present_MN=present,
        )
        for first in (0, 4)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-9)
    assert whole > 0.1


def test_each_modality_trains_on_its_own_rows_alone() -> None:
    """Losses, gradients and batch statistics of a batch with holes are those of the rows that are there."""
    config = three_modalities()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    rows = batch_of(config, 8)
    present = {"audio": torch.tensor([True] * 5 + [False] * 3), "motion": torch.tensor([False] * 4 + [True] * 4)}

    def module() -> DetachedEncoders:
        torch.manual_seed(0)
        made = DetachedEncoders(config, 3, ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64))).train()
        made.effective_MD[:, ::2] = torch.tensor([[True], [False], [True]])
        return made

    there = {name: present.get(name, torch.ones(8, dtype=torch.bool)) for name in rows}
    together = module()
    parts = together.losses(Batch({name: rows[name][there[name]] for name in rows}, labels, present))
    torch.autograd.backward(torch.stack(list(parts.values())).sum())
    for name in together.names:
        alone = module()
        features, logits = alone.encoder(name)(rows[name][there[name]])
        own = labels[there[name]]
        cross_entropy = torch.nn.functional.cross_entropy
        torch.autograd.backward(cross_entropy(logits, own) + cross_entropy(alone.shared_head(features), own))
        for found, expected in zip(together.encoder(name).parameters(), alone.encoder(name).parameters(), strict=True):
            assert found.grad is not None
            assert expected.grad is not None
            assert torch.allclose(found.grad, expected.grad, atol=1e-6)
        for key, value in alone.encoder(name).state_dict().items():
            assert torch.equal(together.encoder(name).state_dict()[key], value), key


def test_a_modality_with_one_row_or_none_makes_no_step() -> None:
    config = three_modalities()
    torch.manual_seed(0)
    clips = random_clips(config, 6)
    module = DetachedEncoders(config, 3, clips).train()
    module.effective_MD[:, ::2] = torch.tensor([[True], [False], [True]])
    module.separated.fill_(True)
    rows, labels = batch_of(config, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    present = {"audio": torch.tensor([True] + [False] * 5), "motion": torch.zeros(6, dtype=torch.bool)}
    given = Batch({n: rows[n][present[n]] if n in present else rows[n] for n in rows}, labels, present)
    before = state_of(module.encoders)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    parts = module.losses(without_lone_rows(given))
    assert parts["duc"].item() == 0.0, "no two modalities have two rows in common"
    torch.autograd.backward(torch.stack(list(parts.values())).sum())
    optimiser.step()
    for key, value in module.encoders.state_dict().items():
        assert key.startswith("visual.") or torch.equal(value, before[key]), key
        assert torch.isfinite(value.float()).all(), key
    assert not torch.equal(module.encoders.state_dict()["visual.head.weight"], before["visual.head.weight"])


def test_separation_of_a_modality_is_that_of_its_own_clips() -> None:
    config = three_modalities()
    torch.manual_seed(0)
    clips = random_clips(config, 30)
    has = np.random.default_rng(0).random(30) < 0.6
    nonsense = {name: array.copy() for name, array in clips.arrays.items()}
    nonsense["audio"][~has] = np.nan
    module = DetachedEncoders(config, 3, ClipRows(nonsense, clips.slots, clips.labels, {"audio": has}))
    module.separate()
    with_holes = module.effective_MD.clone()
    module.train_clips = clips.take(np.flatnonzero(has))
    module.separate()
    assert torch.equal(with_holes[0], module.effective_MD[0])
    assert 0 < int(with_holes[0].sum()) < with_holes.shape[1]
    module.train_clips = clips
    module.separate()
    assert torch.equal(with_holes[1:], module.effective_MD[1:])


def test_stage_2_reads_whole_clips_alone() -> None:
    config = three_modalities()
    torch.manual_seed(0)
    clips = random_clips(config, 12)
    encoders = dict(DetachedEncoders(config, 3, clips).eval().encoders.items())
    has = np.arange(12) % 3 != 0
    nonsense = {name: array.copy() for name, array in clips.arrays.items()}
    nonsense["audio"][~has] = np.nan
    holed = ClipRows(nonsense, clips.slots, clips.labels, {"audio": has})
    heads = []
    for given in (holed, clips.take(np.flatnonzero(has))):
        heads.append(train_fused_head(config, encoders, 3, train=given, validation=given, on_epoch=lambda _: None))
    assert torch.equal(heads[0].weight, heads[1].weight)
