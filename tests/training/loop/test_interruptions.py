"""A run directory that moves, that two processes want, or whose loggers fail; stage 2 that diverges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from dimml.errors import DataError, SetupError
from dimml_training.config import parse_config
from dimml_training.loop.epoch_log import epoch_log
from dimml_training.loop.train import train
from support.tiny_training import configured, document, epochs, weights


def chosen(out: Path) -> int:
    values = [float(row["val_selection"]) for row in epochs(out) if row["val_selection"]]
    return values.index(max(values))


def test_a_run_that_moved_keeps_its_best_epoch(clips: Path, cache: Path, tmp_path: Path) -> None:
    config = configured(clips, epochs=6)
    train(config, tmp_path / "whole", cache_dir=cache)
    best = chosen(tmp_path / "whole")

    def stop(line: str) -> None:
        if "epoch 6/6" in line:
            raise SetupError("stopped")

    with pytest.raises(SetupError, match="stopped"):
        train(config, tmp_path / "here", cache_dir=cache, tell=stop)
    (tmp_path / "here").rename(tmp_path / "there")
    train(config, tmp_path / "there", cache_dir=cache, resume=True)
    assert best < 5, "the best epoch must lie before the move, or this test shows nothing"
    assert chosen(tmp_path / "there") == best
    first, moved = weights(tmp_path / "whole"), weights(tmp_path / "there")
    assert all(torch.equal(first[key], moved[key]) for key in first)
    assert not (tmp_path / "here").exists()


def test_two_processes_do_not_train_into_one_place(clips: Path, cache: Path, tmp_path: Path, finished: Path) -> None:
    out, config = tmp_path / "run", configured(clips)
    refused = []

    def second(line: str) -> None:
        if "epoch 2/4" in line:
            with pytest.raises(SetupError, match=r"another process is training in .*; wait for it") as raised:
                train(config, out, cache_dir=cache, resume=True)
            refused.append(raised)

    train(config, out, cache_dir=cache, tell=second)
    assert len(refused) == 1
    first, undisturbed = weights(out), weights(finished)
    assert all(torch.equal(first[key], undisturbed[key]) for key in first)


def test_a_logger_that_cannot_be_closed_hides_no_error(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow's, whose server must be told of the end."""

    def gone(self: TensorBoardLogger, status: str) -> None:
        raise ConnectionError("the server went away")

    monkeypatch.setattr(TensorBoardLogger, "finalize", gone)
    config = configured(clips)
    with pytest.raises(DataError, match="its own"), epoch_log(config, tmp_path):
        raise DataError("its own", problems=[])
    message = r"the run is finished, but TensorBoardLogger could not be closed \(ConnectionError\)"
    with pytest.raises(SetupError, match=message), epoch_log(config, tmp_path):
        pass


def test_a_stage_2_that_diverges_is_said_to(clips: Path, cache: Path, tmp_path: Path) -> None:
    content = document(clips)
    content["stage2"]["optimiser"] = {"kind": "sgd", "lr": 1e38}
    with pytest.raises(SetupError, match=r"stage 2 is not finite; train anew with a lower stage2\.optimiser\.lr"):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
