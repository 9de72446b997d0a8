"""Shapes of arrays, checked by the suffix of their names: numpy would broadcast what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.errors import InvalidTensorError


def check_shapes(**arrays: npt.NDArray[Any]) -> None:
    """Check that each array has one axis per letter of its name's suffix, and that a letter always means one size.

    ``logits_BHC=…, present_BH=…`` asks for three and two axes that agree in B and H. Raises InvalidTensorError naming
    the array.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        axes = name.rpartition("_")[2]
        shape = np.shape(array)
        if len(shape) != len(axes):
            raise InvalidTensorError(
                f"{name} must have {len(axes)} {'axis' if len(axes) == 1 else 'axes'} [{', '.join(axes)}], "
                f"got shape {list(shape)}",
                field=name,
            )
        for axis, size in zip(axes, shape, strict=True):
            wanted, first = sizes.setdefault(axis, (size, name))
            if size != wanted:
                raise InvalidTensorError(
                    f"{name} has shape {list(shape)}, in which {axis} is {size}; it is {wanted} in {first}", field=name
                )
