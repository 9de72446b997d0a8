"""What TensorBoard is told is what stands in metrics.csv and metrics.json; MLflow is asked for only where it is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dimml.errors import ConfigurationError
from dimml_training.config import with_fields
from dimml_training.loop.epoch_log import epoch_log
from support.fresh_home import files_below, fresh_home
from support.tiny_training import configured, epochs


def test_tensorboard_has_every_figure_of_every_epoch(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    rows = epochs(finished)
    for stage, key in (("stage1", "epoch"), ("stage2", "stage2_epoch")):
        of_stage = [row for row in rows if row[key]]
        for name in {name for row in of_stage for name, value in row.items() if value} - {key}:
            found = [(event.step, event.value) for event in events.Scalars(f"{stage}/{name}")]
            expected = [(int(float(row[key])), float(row[name])) for row in of_stage if row[name]]
            assert [step for step, _ in found] == [step for step, _ in expected]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-5)
    test = json.loads((finished / "metrics.json").read_text())["test"]
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(test["accuracy"])


def test_without_loggers_nothing_is_written(clips: Path, tmp_path: Path) -> None:
    config = with_fields(configured(clips), {"logging.tensorboard": False}, "test")
    with epoch_log(config, tmp_path) as logs:
        logs.epoch({"epoch": 0.0, "train_loss": 1.0})
        logs.result({"test": {"accuracy": 1.0}})
    assert list(tmp_path.iterdir()) == []


def test_a_password_does_not_get_into_a_run(clips: Path) -> None:
    """The config stands in the run, its report and the exported manifest."""
    with pytest.raises(ConfigurationError, match=r"logging\.mlflow: .* MLFLOW_TRACKING_PASSWORD") as raised:
        with_fields(configured(clips), {"logging.mlflow": "http://ann:secret@host:5000"}, "test")
    assert "secret" not in str(raised.value)


def test_mlflow_that_is_not_installed_is_said_to_be(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name))
    config = with_fields(configured(clips), {"logging.mlflow": "http://127.0.0.1:1"}, "test")
    with pytest.raises(ConfigurationError, match="pip install mlflow") as raised, epoch_log(config, tmp_path):
        pass
    assert raised.value.field == "logging.mlflow"


@pytest.mark.filterwarnings("default")
def test_mlflow_gets_the_figures(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    config = with_fields(configured(clips), {"logging.mlflow": uri}, "test")
    with epoch_log(config, tmp_path) as logs:
        logs.epoch({"epoch": 0.0, "train_loss": 1.5})
        logs.epoch({"stage2_epoch": 1.0, "val_accuracy_fused": 0.5})
        logs.result({"test": {"accuracy": 0.75}})
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("stripes")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"stage1/train_loss": 1.5, "stage2/val_accuracy_fused": 0.5, "test/accuracy": 0.75}
    assert run.data.params["seed"] == "0"


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("import dimml.system.outbound; dimml.system.outbound.set_quiet_defaults()", []),
        ("", [".config/mlflow/telemetry.json"]),
    ],
    ids=["as dimml imports it", "by itself"],
)
def test_mlflow_keeps_no_installation_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, left: list[str]
) -> None:
    home = fresh_home(tmp_path, monkeypatch)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)  # MLflow takes it for CI, and is quiet.
    subprocess.run([sys.executable, "-c", f"{before}\nimport mlflow"], check=True, timeout=100)
    assert files_below(home) == left
