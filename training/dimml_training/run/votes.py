"""``votes.safetensors`` of a run: every head's logits for each validation and test clip, and the answers.

From it a report draws confusion matrices and reliability diagrams without encoders or data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from dimml.errors import SetupError
from dimml.fusion import BoolArray, FloatArray, Fused, FusionSpec
from dimml.system.files import write_atomically
from dimml_training.evaluation.heads import HeadLogits

VOTES_FILE = "votes.safetensors"
#: Most clips saved of a split, spread evenly over it: more would not change a diagram, but fill the disk.
CLIPS = 20_000


@dataclass(frozen=True)
class Votes:
    """Votes of H heads for N clips, and the answers that ``fusion`` makes of them.

    Logits ``[N, H, C]``, presence of the heads ``[N, H]``, true classes ``[N]``, the answers' probabilities ``[N, C]``,
    and the heads' certainty ``[N, H]``, which is None in runs of older versions.
    """

    heads: tuple[str, ...]
    logits_NHC: FloatArray
    present_NH: BoolArray
    labels_N: npt.NDArray[np.int64]
    answer_NC: FloatArray
    fusion: FusionSpec
    certainty_NH: FloatArray | None = None


def write_votes(folder: Path, found: Mapping[str, tuple[HeadLogits, Fused]], fusion: FusionSpec) -> None:
    """Write the votes and answers of some splits."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    heads: tuple[str, ...] = ()
    for split, (votes, fused) in found.items():
        heads = votes.heads
        clips = len(votes.labels_N)
        kept = np.unique(np.linspace(0, clips - 1, min(CLIPS, clips)).round().astype(np.int64))
        arrays[f"{split}.logits"] = votes.logits_NHC[kept].astype(np.float32)
        arrays[f"{split}.present"] = votes.present_NH[kept]
        arrays[f"{split}.labels"] = votes.labels_N[kept].astype(np.int64)
        arrays[f"{split}.answers"] = fused.probabilities_BC[kept].astype(np.float32)
        arrays[f"{split}.certainty"] = fused.certainty_BH[kept].astype(np.float32)
    metadata = {"heads": json.dumps(heads), "fusion": fusion.model_dump_json()}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(folder / VOTES_FILE, safetensors.numpy.save(whole, metadata=metadata))


def read_votes(folder: Path) -> dict[str, Votes]:
    """Read the votes by split; empty if the run has none. Raises SetupError if the file is damaged."""
    path = folder / VOTES_FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        heads = tuple(json.loads(metadata["heads"]))
        fusion = FusionSpec.model_validate_json(metadata["fusion"])
        return {
            split: Votes(
                heads=heads,
                logits_NHC=arrays[f"{split}.logits"],
                present_NH=arrays[f"{split}.present"],
                labels_N=arrays[f"{split}.labels"],
                answer_NC=arrays[f"{split}.answers"],
                fusion=fusion,
                certainty_NH=arrays.get(f"{split}.certainty"),
            )
            for split in dict.fromkeys(name.split(".")[0] for name in arrays)
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SetupError(f"{path} is damaged: {' '.join(str(error).split())}") from error
