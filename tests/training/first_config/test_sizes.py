"""Which column of a table gives which modality."""

from __future__ import annotations

from collections import Counter

import pytest

from dimml_training.first_config.media_sample import PICTURES, SOUND, ColumnSample
from dimml_training.first_config.sizes import choose_sizes

BOTH, SOUND_ONLY, PICTURES_ONLY = (SOUND, PICTURES), (SOUND,), (PICTURES,)


@pytest.mark.parametrize(
    ("columns", "sound", "pictures"),
    [
        ({"clip": BOTH}, "clip", "clip"),
        ({"sound": BOTH, "video": BOTH}, "sound", "video"),
        ({"video": BOTH, "audio": SOUND_ONLY}, "audio", "video"),
        ({"a": BOTH, "b": SOUND_ONLY}, "b", "a"),
        ({"clip": BOTH, "thumbnail": PICTURES_ONLY}, "clip", "clip"),
        ({"speech": SOUND_ONLY}, "speech", None),
        ({"view": PICTURES_ONLY}, None, "view"),
    ],
)
def test_each_modality_has_the_column_that_is_meant_for_it(
    columns: dict[str, tuple[str, ...]], sound: str | None, pictures: str | None
) -> None:
    samples = {
        name: ColumnSample(lengths_s=[3.0] * 8, files=8, tracks=Counter(dict.fromkeys(tracks, 8)))
        for name, tracks in columns.items()
    }
    sizes = choose_sizes(samples, train_clips=40, ranged=False, gpu=False, cores=2)
    assert (sizes.sound and sizes.sound.column, sizes.pictures and sizes.pictures.column) == (sound, pictures)
