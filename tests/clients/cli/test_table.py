"""The table of `dimml predict`: one line a file, within the console's width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dimml.errors import InvalidParameterError
from dimml.prediction import (
    Explanation,
    LabelProbability,
    ModalityAnswer,
    ModalityExplanation,
    Occlusion,
    OcclusionCurve,
    Prediction,
    Stretch,
    WithoutAnswer,
)
from dimml.status import Status
from dimml_client.cli.predict import FileResult, PredictInput
from dimml_client.cli.table import print_predictions


def answered(name: str, modalities: int, label: str) -> FileResult:
    own = {
        f"visual{k}": ModalityAnswer(status=Status.OK, label=label, probability=0.9, certainty=0.8, weight=0.25)
        for k in range(modalities)
    }
    prediction = Prediction(
        request_id="r",
        model="m",
        version=1,
        label=label,
        probability=0.9,
        predictions=[LabelProbability(label=label, probability=0.9)],
        degraded=False,
        modalities=own,
    )
    return FileResult(PredictInput(name, {"media": Path(name)}), prediction=prediction)


def test_sets_of_several_labels_stand_below_the_table_and_abstained_in_the_last_column() -> None:
    sure, unsure = answered("a.mp4", 1, "blue"), answered("b.mp4", 1, "red")
    assert sure.prediction is not None
    assert unsure.prediction is not None
    labels = [f"l{k}" for k in range(12)]
    given = [
        FileResult(sure.recording, sure.prediction.model_copy(update={"set": ["blue"], "abstained": False})),
        FileResult(unsure.recording, unsure.prediction.model_copy(update={"set": labels, "abstained": True})),
    ]
    out = io.StringIO()
    print_predictions(given, Console(file=out, width=80))
    _, first, second, below = out.getvalue().rstrip().splitlines()
    assert "abstained" not in first
    assert second.endswith("abstained")
    assert below == "b.mp4: one of l0, l1, l2, l3, l4, l5, l6, l7, l8, l9 and 2 more"


def test_why_stands_below_the_table() -> None:
    one = answered("a.mp4", 1, "blue")
    assert one.prediction is not None
    curve = OcclusionCurve(log_probability=[-0.2, -0.9, None], label=["blue", "red", None])
    explanation = Explanation(
        label="blue",
        log_probability=-0.1,
        nothing_log_probability=-1.1,
        modalities={
            "audio": ModalityExplanation(shapley=1.25, without=WithoutAnswer(label="red", probability=0.5)),
            "visual": ModalityExplanation(shapley=-0.25, without=None),
        },
        occlusion=Occlusion(
            stretches=[Stretch(start_s=k / 10, end_s=(k + 1) / 10) for k in range(3)], modalities={"visual": curve}
        ),
        stopped="deadline",
        explain_ms=1.0,
    )
    out = io.StringIO()
    why = FileResult(one.recording, prediction=one.prediction.model_copy(update={"explanation": explanation}))
    print_predictions([why], Console(file=out, width=80))
    assert out.getvalue().splitlines()[2:] == [
        "a.mp4: blue by audio +1.25 (without it red 0.500), visual -0.25 nats; "
        "most of all by visual at 0.1-0.2 s (-0.80 if blanked); not whole: deadline"
    ]


@pytest.mark.parametrize("name", ["a.mp4", "/data/" + "long/" * 20 + "clip_0042.mp4"])
@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_a_line_a_file_in_80_columns(name: str, modalities: int) -> None:
    out = io.StringIO()
    error = InvalidParameterError("start_s (50) is past the end of the media (3.000 s): " + "words " * 20)
    broken = FileResult(PredictInput("broken.mp4", {}), error=error)
    print_predictions([answered(name, modalities, "someclass"), broken], Console(file=out, width=80))
    head, line, short, whole = out.getvalue().splitlines()
    assert max(len(head), len(line), len(short)) <= 80
    assert name[-8:] in line
    assert line.count("25%") == modalities
    assert "0.900" in line
    assert short.split() == ["broken.mp4", "error"]
    assert whole == f"broken.mp4: {error.message}"
