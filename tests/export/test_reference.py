"""The reference of a run: from what it kept, as far as that goes, and what is said where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from dimml.fusion import Certainty, Fused, FusionSpec, fuse, fuse_weighted, heads_present
from dimml.metrics.buckets import UNIT_BUCKETS
from dimml_export.reference import LEAST_CLIPS, answer_probabilities, reference_distributions
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.run.directory import TrainedRun, load_run
from dimml_training.run.votes import VOTES_FILE, write_votes
from support.hardly_trained import make_run

CLIPS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tones")


def voted(folder: Path, fusion: FusionSpec) -> tuple[TrainedRun, HeadLogits, Fused]:
    """The run with votes of random heads, the fused head among them whether it is to vote or not."""
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(CLIPS, 3, 4)).astype(np.float32)
    present = heads_present(rng.random((CLIPS, 2)) < 0.9, fused_head=True)
    votes = HeadLogits(("audio", "visual", "fused"), logits, present, np.zeros(CLIPS, np.int64))
    voting = slice(3 if fusion.fused_head else 2)
    static = replace_certainty(fusion)
    fused = fuse(logits[:, voting], present[:, voting], static)
    idle = 3 - fused.certainty_BH.shape[1]
    fused = replace(fused, certainty_BH=np.pad(fused.certainty_BH, ((0, 0), (0, idle))))
    write_votes(folder, {"validation": (votes, fused)}, fusion)
    return replace(load_run(folder), fusion=fusion), votes, fused


def replace_certainty(fusion: FusionSpec) -> FusionSpec:
    """Any numbers will do for a learned certainty."""
    return fusion.model_copy(update={"certainty": "max_prob"})


def drop_certainty(folder: Path) -> None:
    """As an earlier version wrote the votes."""
    with safe_open(folder / VOTES_FILE, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys() if "certainty" not in name}  # noqa: SIM118  # no mapping
    (folder / VOTES_FILE).write_bytes(safetensors.numpy.save(arrays, metadata=metadata))


@pytest.mark.parametrize("fused_head", [True, False])
def test_it_counts_what_the_run_kept_and_old_runs_have_it_computed(folder: Path, fused_head: bool) -> None:
    run, votes, fused = voted(folder, FusionSpec(fused_head=fused_head))
    reference, said = reference_distributions(folder, run)
    assert reference is not None
    assert said == []
    heads = ("audio", "visual", "fused")[: 2 + fused_head]
    assert set(reference.certainty) == set(heads)
    for index, head in enumerate(heads):
        there = fused.certainty_BH[votes.present_NH[:, index], index]
        assert reference.certainty[head] == tuple(np.histogram(there, bins=[-1.0, *UNIT_BUCKETS])[0])
    answered = fused.probabilities_BC[votes.present_NH.any(axis=1)]
    assert reference.labels == tuple(np.bincount(answered.argmax(axis=1), minlength=4))
    assert reference.answer_probability == {}, "some of the 50 clips lack a modality"
    drop_certainty(folder)
    assert reference_distributions(folder, run) == (reference, [])


def test_a_learned_certainty_of_an_old_run_is_missing_and_said_to_be(folder: Path) -> None:
    run, _, _ = voted(folder, FusionSpec(fused_head=False, certainty="reliability"))
    whole, said = reference_distributions(folder, run)
    assert (whole is not None and set(whole.certainty), said) == ({"audio", "visual"}, [])
    drop_certainty(folder)
    reference, (said_now,) = reference_distributions(folder, run)
    assert reference is not None
    assert reference.certainty == {}
    assert whole is not None
    assert reference.labels == whole.labels
    assert "no drift of certainty" in said_now
    assert "dimml calibrate" in said_now


def test_votes_of_another_fusion_are_not_taken(folder: Path) -> None:
    run, _, _ = voted(folder, FusionSpec(fused_head=True))
    other = replace(run, fusion=FusionSpec(fused_head=True, temperature=0.5))
    reference, (said,) = reference_distributions(folder, other)
    assert reference is None
    assert "another fusion" in said


@pytest.mark.parametrize("fused_head", [True, False])
def test_the_answers_certainty_is_noted_for_every_pattern_of_enough_clips(fused_head: bool) -> None:
    rng, clips = np.random.default_rng(5), LEAST_CLIPS + 30
    heads = ("audio", "visual", "fused")[: 2 + fused_head]
    logits = rng.normal(size=(clips, len(heads), 4)).astype(np.float32)
    has = np.ones((clips, 2), np.bool_)
    has[:31, 1] = False  # Of the picture there is one clip too few.
    spec = FusionSpec(fused_head=fused_head, pooling="probabilities", answer_temperature=1.5)
    voting = heads_present(has, fused_head)
    certainty = fuse(logits, np.ones_like(voting), spec).certainty_BH
    found = answer_probabilities(heads, logits, voting, certainty, spec)
    # The sound alone, fused with everything else left out.
    alone = fuse(logits, heads_present(np.repeat([[True, False]], clips, axis=0), fused_head), spec)
    assert found == {"audio": pytest.approx(alone.probabilities_BC.max(axis=1).mean(), abs=1e-6)}
    has[:31, 1] = True
    whole = fuse(logits, heads_present(has, fused_head), spec).probabilities_BC.max(axis=1).mean()
    found = answer_probabilities(heads, logits, heads_present(has, fused_head), certainty, spec)
    assert set(found) == {"audio+visual", "audio", "visual"}
    assert found["audio+visual"] == pytest.approx(whole, abs=1e-6)


def test_a_certainty_that_sees_the_others_is_of_no_other_pattern_than_its_own() -> None:
    rng, clips = np.random.default_rng(5), LEAST_CLIPS
    logits = rng.normal(size=(2 * clips, 2, 4)).astype(np.float32)
    certainty = rng.uniform(size=(2 * clips, 2)).astype(np.float32)
    has = np.ones((2 * clips, 2), np.bool_)
    has[:clips, 1] = False
    wanted: dict[Certainty, set[str]] = {
        "reliability": {"audio", "audio+visual", "visual"},
        "cross_reliability": {"audio", "audio+visual"},
    }
    for name, patterns in wanted.items():
        spec = FusionSpec(certainty=name, fused_head=False)
        assert set(answer_probabilities(["audio", "visual"], logits, has, certainty, spec)) == patterns
    alone = fuse_weighted(logits[:clips], has[:clips], certainty[:clips], spec).probabilities_BC.max(axis=1).mean()
    found = answer_probabilities(["audio", "visual"], logits, has, certainty, spec)
    assert found["audio"] == pytest.approx(alone, abs=1e-6)
