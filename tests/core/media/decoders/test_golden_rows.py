"""What the decoders give stays what ``DECODER_VERSION`` stands for; see ``support.golden_rows`` for making it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimml.media.decoders.version import DECODER_VERSION
from support.golden_rows import CASES, decoded_rows, differences, kept_rows


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return kept_rows()


def test_golden_rows_are_of_this_version(golden: dict[str, Any]) -> None:
    assert int(golden["decoder_version"]) == DECODER_VERSION, "make them anew: see support.golden_rows"
    assert {name.split("/")[0] for name in golden if "/" in name} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_is_decoded_is_what_this_version_stands_for(name: str, golden: dict[str, Any], tmp_path: Path) -> None:
    said, rows = decoded_rows(CASES[name], tmp_path)
    found = differences(name, said, rows, golden)
    assert not found, "\n".join(
        [*found, "if this is meant, raise DECODER_VERSION and make the rows anew: see support.golden_rows"]
    )


def test_small_changes_of_what_is_decoded_are_found(golden: dict[str, Any], tmp_path: Path) -> None:
    """The comparison is no rubber stamp: three levels of a pixel, half a sample, a frame's time, a status."""
    said, rows = decoded_rows(CASES["mp4"], tmp_path)
    assert differences("mp4", said, rows, golden) == []
    pixel, sample = rows["visual"].copy(), rows["audio"].copy()
    pixel[1, 2, 3, 0] += 3 if pixel[1, 2, 3, 0] < 128 else -3
    sample[1:] = sample[1:] + ((sample[:-1].astype(np.int32) - sample[1:]) // 2).astype(np.int16)
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (said, {**rows, "visual": pixel}),
        (said, {**rows, "audio": sample}),
        ({**said, "visual": [said["visual"][0], *(time_s + 0.04 for time_s in said["visual"][1:])]}, rows),
        ({**said, "audio": ["unusable:silent"]}, {name: row for name, row in rows.items() if name != "audio"}),
    ]
    for changed in changes:
        assert differences("mp4", *changed, golden)
