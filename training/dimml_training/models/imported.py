"""A backbone of the user's own code, by import path."""

from __future__ import annotations

import importlib
from functools import reduce
from typing import Any

from torch import Tensor, nn

from dimml.errors import ConfigurationError
from dimml_training.models.backbone_config import ImportBackboneConfig


class ImportedBackbone(nn.Module):
    """The module that ``config.target`` gives, called with ``config.args``.

    Raises ConfigurationError where the code cannot be imported, raises, or gives something else than a module.
    """

    def __init__(self, config: ImportBackboneConfig) -> None:
        super().__init__()
        module, _, name = config.target.partition(":")
        try:
            make: Any = reduce(getattr, name.split("."), importlib.import_module(module))
        except Exception as error:  # importing runs the module, which may raise anything
            raise ConfigurationError(
                f"{config.target} cannot be imported ({type(error).__name__}: {error}); install its package, or add "
                "its folder to PYTHONPATH",
                field="backbone.target",
            ) from error
        try:
            made = make(**config.args)
        except Exception as error:
            raise ConfigurationError(
                f"{config.target} called with args {config.args}: {type(error).__name__}: {error}",
                field="backbone.args",
            ) from error
        if not isinstance(made, nn.Module):
            raise ConfigurationError(
                f"{config.target} gives a {type(made).__name__}, not a torch.nn.Module", field="backbone.target"
            )
        self.module = made

    def forward(self, tensor: Tensor) -> Tensor:
        """Features ``[N, D]``."""
        features_ND: Tensor = self.module(tensor)
        return features_ND
