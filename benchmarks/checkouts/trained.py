"""A tiny run: trained by both checkouts from one seed; the first one's evaluated, exported and resumed by both."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.numpy

from checkouts.checkout import REPOSITORY, Checkout
from checkouts.commands import shown
from checkouts.comparison import VOLATILE, without_durations, without_noise

#: Also aside: when a bundle was made.
_DATED = VOLATILE | {"created"}
#: Files that hold the times of a training, or nothing.
_LEFT_OUT = ("checkpoints", "tensorboard")
_DATA, _CONFIG, _OWN, _GIVEN, _KEY = "data", "config.yaml", "own", "given", "maker"
#: The clips and the config that the checkout's own tests train on.
_MAKE = """
import json, pathlib
from support.tiny_training import document, write_clips
data = pathlib.Path("data")
data.mkdir()
config = document(write_clips(data))
config["data"]["manifest"] = "data/clips.csv"
pathlib.Path("config.yaml").write_text(json.dumps(config))
"""


def make_data(before: Checkout, after: Checkout) -> None:
    """Make clips and a config by the first checkout, and give them to the second. Raises RuntimeError."""
    done = before.python_run(_MAKE, path=before.path / "tests")
    if done.returncode != 0:
        raise RuntimeError(f"{before.path}: its tests/support/tiny_training.py makes no clips: {done.stderr}")
    before.must("bundle", "keygen", _KEY)
    for name in (_DATA, _CONFIG, f"{_KEY}.key", f"{_KEY}.pub"):
        _copy(before.folder / name, after.folder / name)


def own_training(checkout: Checkout) -> dict[str, Any]:
    """A run from the config's seed: every file of it."""
    done = checkout.must("train", _CONFIG, "--out", _OWN, "--json")
    printed = {"dimml train": without_noise(json.loads(done.stdout))}
    return printed | _files(checkout, _OWN, "trained")


def hand_over(before: Checkout, after: Checkout) -> None:
    """Give the first checkout's run to both, whole and as one that stopped before its end."""
    for checkout in (before, after):
        _copy(before.folder / _OWN, checkout.folder / _GIVEN)
        _copy(before.folder / _OWN, checkout.folder / "resumed")
        (checkout.folder / "resumed" / "run.json").unlink()


def use_of_run(checkout: Checkout) -> dict[str, Any]:
    """What a checkout makes of the first one's run: evaluation, export twice, another fusion, resumed training."""
    key, public = f"{_KEY}.key", f"{_KEY}.pub"
    words = {
        "dimml evaluate": f"evaluate {_GIVEN} --json --predictions predictions.csv",
        "dimml evaluate with noise": f"evaluate {_GIVEN} --json --noise-db 0 --split validation",
        "dimml evaluate --corruptions": f"evaluate {_GIVEN} --json --corruptions",
        "dimml export": f"export {_GIVEN} --repository exported",
        "dimml export again": f"export {_GIVEN} --repository exported --deadline-ms audio=500 --json",
        "dimml bundle sign": f"bundle sign avdigits --repository {REPOSITORY} --key {key}",
        "dimml bundle verify": f"bundle verify --repository {REPOSITORY} --public-key {public}",
        "dimml train --resume": f"train {_CONFIG} --out resumed --resume --json",
        "dimml report": f"report {_GIVEN}",
    }
    found: dict[str, Any] = {name: shown(checkout, *of.split()) for name, of in words.items()}
    for name, answer in found.items():
        if answer["exit code"] != 0:
            raise RuntimeError(f"{checkout.path}: {name}: {answer}")
    found["predictions.csv"] = _content(checkout, checkout.folder / "predictions.csv")
    for folder in ("exported", REPOSITORY, "resumed", _GIVEN):
        found |= _files(checkout, folder, folder)
    found |= {"dimml calibrate": shown(checkout, "calibrate", _GIVEN, "--json")} | _files(
        checkout, _GIVEN, "calibrated"
    )
    return found


def _files(checkout: Checkout, folder: str, name: str) -> dict[str, Any]:
    """Every file below a folder by its path, under a name."""
    root = checkout.folder / folder
    paths = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
    kept = [path for path in paths if path.parts[0] not in _LEFT_OUT]
    return {f"{name}/{path}": _content(checkout, root / path) for path in kept}


def _content(checkout: Checkout, path: Path) -> Any:
    """JSON as a document, texts as text, tensors as digests by name, all else as one digest."""
    if path.suffix == ".safetensors":
        arrays = safetensors.numpy.load_file(path)
        return {
            name: [str(a.dtype), list(a.shape), hashlib.sha256(a.tobytes()).hexdigest()]
            for name, a in sorted(arrays.items())
        }
    if path.suffix == ".json":
        return without_noise(json.loads(path.read_text()), _DATED)
    if path.suffix in (".html", ".csv", ".yaml", ".pbtxt", ".py"):
        text = path.read_text().replace(str(checkout.folder), "FOLDER")
        return without_durations(text) if path.suffix == ".html" else text
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
