"""What a file of a series gives, and the bounds that hold for every form of file."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dimml.errors import TooLargeError

#: Channels that a file may have.
MOST_CHANNELS: Final = 4096
#: Values, samples times channels, of one window, and of a file that is read whole: 256 MiB as FP64.
MOST_VALUES: Final = 2**25


class SeriesFileError(ValueError):
    """The file is no series that is read; its text ends the sentence "it is …"."""


class SeriesFile(Protocol):
    """An open file of samples."""

    samples: int
    channels: int
    #: None where the file states none.
    rate_hz: float | None
    #: Seconds of every sample from the first one, rising; None where they follow from the rate.
    times_s: npt.NDArray[np.float64] | None
    #: Names of the channels, where the file has any.
    names: tuple[str, ...] | None

    def read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Read samples ``begin`` to ``end``, ``[samples, channels]``, NaN where one is missing.

        Raises SeriesFileError, and TooLargeError for more than ``MOST_VALUES``.
        """
        ...


def check_values(count: int) -> None:
    """Raise TooLargeError for more than ``MOST_VALUES`` values at a time."""
    if count > MOST_VALUES:
        raise TooLargeError(
            f"a series of {count} values is more than the {MOST_VALUES} that are read at a time; send a shorter one"
        )
