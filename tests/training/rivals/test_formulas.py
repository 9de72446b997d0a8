"""The rivals' formulas against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dimml_training.rivals.evidential import (
    conflicts,
    dempster,
    divergence_from_uniform,
    evidential_losses,
    mean_opinion,
)
from dimml_training.rivals.heads import softmax_of_present
from dimml_training.rivals.mla import entropies
from dimml_training.rivals.pdf import co_beliefs, relative_calibrations
from dimml_training.rivals.qmf import energy_weights, ranking_losses


def close(found: Tensor, *expected: float) -> None:
    assert found.flatten().tolist() == pytest.approx(list(expected), rel=1e-5, abs=1e-6)


def test_qmf_weighs_by_negative_energy() -> None:
    close(energy_weights(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])), math.log(2) / 10, math.log(4) / 10)


def test_qmf_ranks_weights_against_mean_losses() -> None:
    # The row of the higher loss has the higher weight: 0.3 too much, and the gap of losses on top, in both orders.
    close(ranking_losses(torch.tensor([0.5, 0.2]), torch.tensor([0.9, 0.1])), 1.1, 1.1)
    # A gap of weights as wide as that of losses costs nothing.
    close(ranking_losses(torch.tensor([0.1, 0.95]), torch.tensor([0.9, 0.1])), 0.0, 0.0)
    close(ranking_losses(torch.tensor([0.1, 0.6]), torch.tensor([0.9, 0.1])), 0.3, 0.3)
    close(ranking_losses(torch.tensor([0.1, 0.6]), torch.tensor([0.4, 0.4])), 0.0, 0.0)


def test_mla_halves_the_weight_of_a_coin_toss() -> None:
    entropy = entropies(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
    close(entropy, math.log(2), 0.0)
    # exp(-ln 2) = 1/2 beside exp(-0) = 1; a head that is absent gets none.
    close(softmax_of_present(-entropy[None, None], torch.tensor([[True, True]])), 1 / 3, 2 / 3)
    close(softmax_of_present(-entropy[None, None], torch.tensor([[True, False]])), 1.0, 0.0)
    close(softmax_of_present(-entropy[None, None], torch.tensor([[False, False]])), 0.0, 0.0)


def test_pdf_adds_what_the_others_lose() -> None:
    confidences = torch.tensor([math.exp(-1.0), math.exp(-3.0)])
    close(co_beliefs(confidences, torch.tensor([True, True])), math.exp(-1) + 3 / 4, math.exp(-3) + 1 / 4)
    close(co_beliefs(confidences, torch.tensor([True, False])), math.exp(-1), 0.0)
    three = torch.tensor([math.exp(-1.0), math.exp(-3.0), math.exp(-4.0)])
    close(co_beliefs(three, torch.ones(3).bool())[0], math.exp(-1) + 7 / 8)


def test_pdf_holds_back_a_head_that_is_nearer_to_uniform_than_the_other() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    close(relative_calibrations(logits, torch.tensor([True, True])), 1.0, 0.25)  # 0.4 and 0.1 from uniform
    close(relative_calibrations(logits, torch.tensor([False, True]))[1], 1.0)


def test_dempster_joins_opinions() -> None:
    # b = (1/2, 0) and (0, 1/2), u = 1/2: K = 1/4, b = (1/3, 1/3), u = 1/3, S = 6.
    close(dempster(torch.tensor([[2.0, 0.0], [0.0, 2.0]])), 2.0, 2.0)
    # Agreeing ones: b = 3/4, u = 1/4, S = 8.
    close(dempster(torch.tensor([[2.0, 0.0], [2.0, 0.0]])), 6.0, 0.0)
    close(dempster(torch.tensor([[2.0, 1.0], [0.0, 0.0], [0.0, 0.0]])), 2.0, 1.0)


def test_ecml_averages_opinions_and_measures_their_conflict() -> None:
    both = torch.tensor([True, True])
    against = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    close(mean_opinion(against, both), 1.0, 1.0)
    close(mean_opinion(against, torch.tensor([True, False])), 2.0, 0.0)
    # p = (3/4, 1/4) and (1/4, 3/4): 1/2 apart, each half certain; both orders: 2·1/8.
    close(conflicts(against, both), 0.25)
    close(conflicts(against, torch.tensor([True, False])), 0.0)
    close(conflicts(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), both), 0.0)


def test_the_averaged_opinion_is_the_papers() -> None:
    """``u = 2·u_1·u_2 / (u_1 + u_2)``, ``b = (b_1·u_2 + b_2·u_1) / (u_1 + u_2)``."""
    one, other, classes = [3.0, 1.0, 0.5], [0.0, 7.0, 2.0], 3
    u1, u2 = classes / (sum(one) + classes), classes / (sum(other) + classes)
    strength = classes * (u1 + u2) / (2 * u1 * u2)
    expected = [
        strength * ((e1 * u1 / classes) * u2 + (e2 * u2 / classes) * u1) / (u1 + u2)
        for e1, e2 in zip(one, other, strict=True)
    ]
    close(mean_opinion(torch.tensor([one, other]), torch.tensor([True, True])), *expected)


def test_the_evidential_loss_of_two_classes() -> None:
    alphas, labels = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]]), torch.tensor([0, 0])
    # psi(3) - psi(2) = 1/2; psi(3) - psi(1) = 3/2.
    close(evidential_losses(alphas, labels, 0.0), 0.5, 1.5)
    # The true class is taken out of the divergence: Dir(1, 1), and Dir(1, 2), which is ln 2 - 1/2 from uniform.
    close(evidential_losses(alphas, labels, 1.0), 0.5, 1.5 + math.log(2) - 0.5)
    close(divergence_from_uniform(torch.tensor([1.0, 2.0])), math.log(2) - 0.5)
