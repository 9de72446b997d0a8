"""Version of the decoded result."""

from typing import Final

#: Raise it by one with every change of what is decoded from any file (a row, a status, a length): kept clips, trainings
#: and comparisons of another version are then made anew. Golden rows hold it
#: (``tests/core/media/decoders/test_golden_rows.py``).
DECODER_VERSION: Final = 2
