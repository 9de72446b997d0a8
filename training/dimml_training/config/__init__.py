"""Configuration of ``dimml train``: one YAML file, typed, frozen, and checked when it is read.

Paths stay in the config as they were written, ``${DIMML_DATA:-../shared/data}`` and all, and are expanded where
they are used: a run directory moved to another machine evaluates there.
"""

from dimml_training.config.augment import PictureAugmentConfig, SeriesAugmentConfig, SoundAugmentConfig
from dimml_training.config.base import SPLITS, Range, Section, Share, Split
from dimml_training.config.certainty import CertaintyConfig, FusionForm
from dimml_training.config.compare import CompareConfig
from dimml_training.config.compute import ComputeConfig
from dimml_training.config.data import ColumnsConfig, DataConfig
from dimml_training.config.loading import expand_path, load_config, parse_config, with_fields
from dimml_training.config.logging import LoggingConfig
from dimml_training.config.modality import (
    ModalityConfig,
    PictureModalityConfig,
    SeriesModalityConfig,
    SoundModalityConfig,
)
from dimml_training.config.run import TrainConfig
from dimml_training.config.stages import JointConfig, LossConfig, OptimiserConfig, Stage1Config, Stage2Config

__all__ = [
    "SPLITS",
    "CertaintyConfig",
    "ColumnsConfig",
    "CompareConfig",
    "ComputeConfig",
    "DataConfig",
    "FusionForm",
    "JointConfig",
    "LoggingConfig",
    "LossConfig",
    "ModalityConfig",
    "OptimiserConfig",
    "PictureAugmentConfig",
    "PictureModalityConfig",
    "Range",
    "Section",
    "SeriesAugmentConfig",
    "SeriesModalityConfig",
    "Share",
    "SoundAugmentConfig",
    "SoundModalityConfig",
    "Split",
    "Stage1Config",
    "Stage2Config",
    "TrainConfig",
    "expand_path",
    "load_config",
    "parse_config",
    "with_fields",
]
