"""A first config as YAML, with a comment for what its reader may want to change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dimml_training.config import SPLITS
from dimml_training.first_config.media_sample import PICTURES, SOUND
from dimml_training.first_config.sizes import PictureSize, Sizes, SoundSize

#: Most classes on one line of the config; more are left to the table.
_MOST_LABELS = 60


@dataclass(frozen=True)
class Described:
    """What a config says of its table; paths as they stand in it."""

    name: str
    manifest: str
    media_root: str
    #: Column of each modality, by name; one column for all where they are the same.
    media: str | dict[str, str]
    label: str
    split: str
    splits: dict[str, str]
    subject: str | None
    start_s: str | None
    end_s: str | None
    labels: Sequence[str]


def config_text(of: Described, sizes: Sizes, remarks: Sequence[str] = ()) -> str:
    """Write the config. It is read by ``load_config`` as it stands; ``remarks`` are comments at its head."""
    lines = [
        "# Written by `dimml init`: a first try, meant to be changed. Every field: docs/training.md, config reference.",
        *(f"# {remark}" for remark in remarks),
        f"name: {of.name}",
        "seed: 0",
    ]
    if sizes.clip_s is not None:
        lines.append(f"clip_s: {sizes.clip_s:g}  # seconds of a clip: the middle of a row's range, or of its recording")
    if sizes.threads is not None:
        lines.append(f"threads: {sizes.threads}  # small encoders gain little from a second thread")
    lines += _data(of, sizes)
    lines.append("modalities:")
    if sizes.sound is not None:
        lines += _sound(sizes.sound, sizes)
    if sizes.pictures is not None:
        lines += _pictures(sizes.pictures, sizes)
    return "\n".join([*lines, *_stages(sizes), ""])


def _data(of: Described, sizes: Sizes) -> list[str]:
    lines = [
        "data:",
        f"  manifest: {_text(of.manifest)}  # the clip table; a relative path starts where `dimml train` is called",
        f"  media_root: {_text(of.media_root)}  # what paths in the table are relative to",
        "  columns:",
        f"    media: {_text(of.media)}",
        f"    label: {_text(of.label)}",
        f"    split: {_text(of.split)}",
    ]
    if of.subject is not None:
        lines.append(f"    subject: {_text(of.subject)}  # who is in two splits is warned of")
    if of.start_s is not None and of.end_s is not None:
        lines += [f"    start_s: {_text(of.start_s)}", f"    end_s: {_text(of.end_s)}"]
    if sizes.margin_s:
        lines.append(f"  margin_s: {sizes.margin_s:g}  # widens every range, so that the shortest reaches clip_s")
    if of.splits != {split: split for split in SPLITS}:
        lines.append(f"  splits: {_text(of.splits)}  # the table's words for them")
    if len(of.labels) <= _MOST_LABELS:
        lines.append(f"  labels: {_text(list(of.labels))}  # in the order of the answers")
    return lines


def _sound(sound: SoundSize, sizes: Sizes) -> list[str]:
    return [
        f"  - input: {{kind: waveform, name: audio, sample_rate_hz: {sound.rate_hz}, samples: {sizes.samples}}}"
        f"  # the media have {sizes.native[SOUND]}; samples: clip_s x rate",
        "    encoder:",
        "      spectrogram: {mels: 48, mask_bands: 0.2, mask_time: 0.15}",
        f"      backbone: {_backbone(sizes, 'strided')}",
        "      dropout: 0.2",
        "    augment: {gain_db: 6, shift_ms: 50, noise_probability: 0.5, noise_snr_db: [-5, 20]}",
    ]


def _pictures(size: PictureSize, sizes: Sizes) -> list[str]:
    lines = [
        f"  - input: {{kind: frames, name: visual, frames: {size.frames}, height: {size.height}, width: {size.width}}}"
        f"  # the media have {sizes.native[PICTURES]}",
        "    # If what matters fills a part of the picture, cut it out: input.region, in fractions.",
        "    encoder:",
        "      normalise: clip  # light and contrast of a clip do not matter; fixed: they do",
        f"      backbone: {_backbone(sizes, 'imagenet' if min(size.height, size.width) >= 48 else 'strided')}",
    ]
    if size.frames > 1:
        lines.append("      pooling: {kind: temporal_conv, dropout: 0.2}  # sees the order of frames; mean does not")
    lines += ["      dropout: 0.3", "    augment: {shift: 0.08, brightness: 20, contrast: 0.2, noise_std: 5}"]
    return lines


def _backbone(sizes: Sizes, stem: str) -> str:
    embedding, hidden, depths = sizes.backbone
    return (
        f"{{embedding_size: {embedding}, hidden_sizes: {list(hidden)}, depths: {list(depths)}, stem: {stem}}}"
        "  # of all modalities the same last size"
    )


def _stages(sizes: Sizes) -> list[str]:
    optimiser = "  optimiser: {kind: adamw, lr: 0.001, weight_decay: 0.01, schedule: cosine}"
    return [
        "stage1:  # the encoders",
        f"  epochs: {sizes.epochs}",
        f"  batch_size: {sizes.batch_size}",
        f"  warmup_epochs: {sizes.warmup_epochs}  # then DUC joins the loss, which jumps by it",
        optimiser,
        "stage2:  # the fused head",
        "  epochs: 10",
        f"  batch_size: {2 * sizes.batch_size}",
        optimiser,
        "# How votes are weighted is chosen on validation clips (docs/certainty.md); the paper's weighting would be:",
        "# fusion: {certainty: max_prob, temperature: 1.0, fused_head: true}",
    ]


def _text(value: object) -> str:
    """A value in YAML's flow style, which is JSON with plain words left plain where that is safe."""
    if isinstance(value, str) and value.replace("_", "").replace("/", "").replace(".", "").isalpha() and _plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _plain(word: str) -> bool:
    return word.lower() not in {"yes", "no", "on", "off", "true", "false", "null", "y", "n"} and word[0].isalpha()
