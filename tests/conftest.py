"""What holds for every test: third-party libraries send nothing, as in every process of ours."""

from __future__ import annotations

import pytest

from dimml.system.outbound import set_quiet_defaults


def pytest_configure(config: pytest.Config) -> None:
    """Before test modules import anything that would send."""
    set_quiet_defaults()
