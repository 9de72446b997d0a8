"""The methods of a comparison: each is a training, as overrides of the config, and a rule that makes its answer.

Methods that share a training share its run: single modalities and late averaging, for example, use the same encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dimml.bundle import FUSED_HEAD
from dimml.errors import ConfigurationError
from dimml.fusion import FusionSpec
from dimml_training.config import TrainConfig
from dimml_training.config.rivals import RivalKind, RivalSetting

#: Schedule of the reference code, in epochs (docs/adr/0001); `dimml_published` scales it to the config's epochs.
PAPER_EPOCHS, PAPER_WARMUP, PAPER_STEP = 150, 20, 70

#: Joint methods that are run with modality dropout too.
DROPPED_OUT = ("joint_concat", "ogm_ge", "mmpareto")

#: Shortcuts for --methods.
MAIN, ALL = "main", "all"


@dataclass(frozen=True)
class HeadAlone:
    """The answer of one head: a modality's own, or the fused one."""

    head: str


@dataclass(frozen=True)
class FixedFusion:
    """A fusion fixed in advance, without looking at data."""

    spec: FusionSpec


@dataclass(frozen=True)
class ChosenFusion:
    """The fusion chosen on validation clips, or the one that the config fixes."""


@dataclass(frozen=True)
class JointHead:
    """The joint head of a joint training."""


@dataclass(frozen=True)
class FittedRival:
    """A rival's fusion, fitted to the validation clips that a fusion is chosen on, in the best of its settings."""

    kind: RivalKind
    settings: tuple[RivalSetting, ...]
    fused_head: tuple[bool, ...]
    steps: int


#: Order of methods in tables, by the first of these that equals the name or begins it.
TABLE_ORDER = (
    *("single:", "late_logits", "late_probabilities"),
    *("joint_concat", "joint_sum", "joint_film", "joint_gated", "ogm_ge", "mmpareto"),
    *("joint_concat_dropout", "ogm_ge_dropout", "mmpareto_dropout"),
    *("qmf", "pdf", "tmc", "ecml", "mla", "stacker"),
    *(
        "dimml_published",
        "dimml",
        "separate_chosen",
        "separate_logits",
        "dimml_no_shared",
        "dimml_no_duc",
        "dimml_no_separation",
    ),
    *("dimml_clw", "dimml_logits", "dimml_probabilities", "dimml:"),
)
AnswerRule = HeadAlone | FixedFusion | ChosenFusion | JointHead | FittedRival

#: What each fitted rival is, for tables.
RIVALS: dict[RivalKind, str] = {
    "qmf": "QMF (Zhang et al. 2023): weighted by energy",
    "pdf": "PDF (Cao et al. 2024): weighted by predicted confidence",
    "tmc": "TMC (Han et al. 2021): opinions joined by Dempster's rule",
    "ecml": "ECML (Xu et al. 2024): opinions averaged",
    "mla": "MLA's test-time weighting (Zhang et al. 2024): by entropy",
    "stacker": "logistic regression on the heads' log probabilities",
}


@dataclass(frozen=True)
class Method:
    """One method, a row of the table."""

    name: str
    answer: AnswerRule
    description: str
    #: Config fields set for this method's training, by dotted name.
    training: dict[str, Any] = field(default_factory=dict)
    #: Among `--methods main`.
    main: bool = False
    #: Whether it is scored on validation clips too, which decide the better modality.
    scored_on_validation: bool = False
    #: Config fields to try in trainings on the first repeat, each a choice; the best on validation clips is taken.
    trials: tuple[dict[str, Any], ...] = ()
    #: The method whose trials settle these fields for this one, too, which then has no trials of its own.
    follows: Method | None = None


def all_methods(config: TrainConfig) -> dict[str, Method]:
    """List every method for these modalities, by name, in the order of the table."""
    modalities = [m.name for m in config.inputs]
    separate = {"stage1.lambda_shared": 0.0, "stage1.lambda_duc": 0.0}
    clw = FusionSpec(certainty="max_prob", temperature=config.compare.clw_temperature, fused_head=True)
    logits = FusionSpec(temperature=None, fused_head=True)
    probabilities = FusionSpec(temperature=None, fused_head=True, pooling="probabilities")
    rivals = config.compare.rivals
    weights = sorted(set(config.compare.duc_weights))
    ours = Method(
        "dimml",
        ChosenFusion(),
        "DI-MML with our choices",
        main=True,
        trials=tuple({"stage1.lambda_duc": weight} for weight in weights),
    )
    found = [
        Method(f"single:{m}", HeadAlone(m), f"{m} alone", separate, main=True, scored_on_validation=True)
        for m in modalities
    ]
    found += [
        Method(
            "late_logits",
            FixedFusion(logits.model_copy(update={"fused_head": False})),
            "mean of the logits of separately trained encoders",
            separate,
            main=True,
        ),
        Method(
            "late_probabilities",
            FixedFusion(probabilities.model_copy(update={"fused_head": False})),
            "mean of the probabilities of separately trained encoders",
            separate,
            main=True,
        ),
        *_joint_methods(),
        *(_with_dropout(method, config) for method in _joint_methods() if method.name in DROPPED_OUT),
        *(
            Method(
                kind,
                FittedRival(kind, getattr(rivals, kind), rivals.fused_head, rivals.steps),
                f"{what}, fitted on damaged validation clips, on separately trained encoders",
                separate,
            )
            for kind, what in RIVALS.items()
        ),
        Method(
            "dimml_published",
            FixedFusion(clw),
            "DI-MML as published: its loss, weighting and shape of schedule at this budget",
            _published(config),
            main=True,
        ),
        ours,
        Method(
            "dimml_no_shared",
            ChosenFusion(),
            "ours without the shared head",
            {"stage1.lambda_shared": 0.0},
            follows=ours,
        ),
        Method("dimml_no_duc", ChosenFusion(), "ours without DUC", {"stage1.lambda_duc": 0.0}),
        Method(
            "dimml_no_separation",
            ChosenFusion(),
            "ours, DUC on all dimensions",
            {"stage1.separation": False},
            follows=ours,
        ),
        Method("separate_chosen", ChosenFusion(), "our choice of fusion on separately trained encoders", separate),
        Method(
            "separate_logits",
            FixedFusion(logits),
            "mean of the logits of all heads, the fused one too, of separately trained encoders",
            separate,
        ),
    ]
    found += [
        Method(name, FixedFusion(spec), what, main=True, follows=ours)
        for name, spec, what in (
            ("dimml_clw", clw, "the paper's weighting on our encoders"),
            ("dimml_logits", logits, "mean of the logits of our heads"),
            ("dimml_probabilities", probabilities, "mean of the probabilities of our heads"),
        )
    ]
    found += [
        Method(f"dimml:{head}", HeadAlone(head), f"our {head} head alone", main=True, follows=ours)
        for head in (*modalities, FUSED_HEAD)
    ]
    return {method.name: method for method in found}


def table_place(name: str) -> tuple[int, str]:
    """Sort key of method names."""
    places = [index for index, start in enumerate(TABLE_ORDER) if name == start or (start[-1] == ":" and start in name)]
    return (places[0] if places else len(TABLE_ORDER)), name


def chosen_methods(config: TrainConfig, wanted: Sequence[str]) -> list[Method]:
    """Methods named by ``--methods``, in the order of the table, each once.

    Raises ConfigurationError that lists the known names.
    """
    known = all_methods(config)
    names: set[str] = set()
    for name in wanted:
        if name == ALL:
            names |= set(known)
        elif name == MAIN:
            names |= {method.name for method in known.values() if method.main}
        elif name in known:
            names.add(name)
        else:
            raise ConfigurationError(
                f"--methods {name or repr(name)}: there is no such method; choose from "
                f"{', '.join((MAIN, ALL, *known))}",
                field="--methods",
            )
    return [method for method in known.values() if method.name in names]


def _joint_methods() -> list[Method]:
    ogm_ge, mmpareto = ({"fusion": "concat", "modulation": name} for name in ("ogm_ge", "mmpareto"))
    return [
        _joint("joint_concat", "joint training, concatenation", {"fusion": "concat"}, main=True),
        _joint("joint_sum", "joint training, sum", {"fusion": "sum"}),
        _joint("joint_film", "joint training, FiLM", {"fusion": "film"}),
        _joint("joint_gated", "joint training, gated", {"fusion": "gated"}),
        _joint("ogm_ge", "OGM-GE (Peng et al. 2022) on concatenation", ogm_ge),
        _joint("mmpareto", "MMPareto (Wei & Hu 2024) on concatenation", mmpareto),
    ]


def _with_dropout(method: Method, config: TrainConfig) -> Method:
    """The same joint method, shown clips without some of their modalities in training, with a flag that says so."""
    return replace(
        method,
        name=f"{method.name}_dropout",
        description=f"{method.description}, with modality dropout",
        training={**method.training, "stage1.joint.presence_flag": True},
        trials=tuple({"stage1.joint.modality_dropout": p} for p in config.compare.rivals.modality_dropout),
        main=False,
    )


def _joint(name: str, description: str, joint: dict[str, str], *, main: bool = False) -> Method:
    training = {"stage1.objective": "joint", **{f"stage1.joint.{key}": value for key, value in joint.items()}}
    return Method(name, JointHead(), description, training, main)


def _published(config: TrainConfig) -> dict[str, Any]:
    epochs = config.stage1.epochs

    def at(paper_epoch: int) -> int:
        return max(1, round(epochs * paper_epoch / PAPER_EPOCHS))

    return {
        "stage1.lambda_shared": 1.0,
        "stage1.lambda_duc": 1.0,
        "stage1.separation": True,
        "stage1.warmup_epochs": at(PAPER_WARMUP),
        "stage1.optimiser.schedule": "step",
        "stage1.optimiser.step_epoch": at(PAPER_STEP),
        **config.compare.published,
    }
