"""Where the demo bundle and its samples are: inside the installed package, or in the checkout it is installed from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dimml.errors import SetupError

_PACKAGE: Final = Path(__file__).resolve().parent
_CHECKOUT: Final = Path(__file__).resolve().parents[3]
REPOSITORY: Final = "model_repository"
SAMPLES: Final = "samples"


def demo_folder(name: str) -> Path:
    """Return the folder of the demo's models or samples. Raises SetupError where this installation has none."""
    for place in (_PACKAGE, _CHECKOUT):
        # A wheel's package folder lies in site-packages, whose grandparents may hold anything of these names.
        if (place / name).is_dir() and (place == _PACKAGE or (place / "pyproject.toml").is_file()):
            return place / name
    raise SetupError(f"this installation has no {name} of the demo; a wheel or a checkout of dimml has it")
