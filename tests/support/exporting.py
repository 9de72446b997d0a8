"""Exports of encoders in tests: torch's table of operators, a fourth of a small export, is made once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def operators_made_once() -> Iterator[None]:
    """``torch.onnx.export`` makes the table anew in every call, and only reads it: our exports add no operator."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    made = ONNXRegistry.from_torchlib

    def remembered(**asked: int) -> Any:
        return _table(made, **asked)

    with pytest.MonkeyPatch.context() as torchs_own:
        torchs_own.setattr(ONNXRegistry, "from_torchlib", staticmethod(remembered))
        yield


@cache
def _table(made: Any, **asked: int) -> Any:
    return made(**asked)
