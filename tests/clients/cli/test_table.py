"""The table of `dimml predict`: one line a file, within the console's width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dimml.errors import InvalidParameterError
from dimml.prediction import LabelProbability, ModalityAnswer, Prediction
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
