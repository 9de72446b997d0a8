"""Voices of each split. A voice is an eSpeak NG variant: its formants, pitch range and phonation.

The split is written out instead of drawn at random: variants that are tunings of one another (``edward``/``edward2``,
``klatt`` to ``klatt6``, ``steph`` to ``steph3``) are in the same split, so that no validation or test voice has a near
copy in training. Accents are not split: each clip draws one.
"""

from __future__ import annotations

from typing import Final, Literal

Split = Literal["train", "validation", "test"]

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

VOICES: Final[dict[Split, tuple[str, ...]]] = {
    "train": (
        *("Alex", "Alicia", "Andrea", "Andy", "Denis", "Gene", "Gene2", "Henrique", "Jacky", "Lee", "Mario"),
        *("Michael", "Mike", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "Storm", "adam", "anika"),
        *("antonio", "belinda", "benjamin", "boris", "david", "ed", "edward", "edward2", "f1", "f3", "f4", "grandma"),
        *("gustave", "iven", "iven2", "iven3", "iven4", "john", "klatt", "klatt2", "klatt3", "klatt4", "klatt5"),
        *("klatt6", "m1", "m2", "m4", "m6", "m7", "marcelo", "max", "michel", "mike2", "norbert", "pablo", "paul"),
        *("pedro", "rob", "robert", "shelby", "steph", "steph2", "steph3", "zac"),
    ),
    "validation": ("Annie", "Diogo", "aunty", "caleb", "f5", "ian", "m5", "miguel", "quincy", "victor"),
    "test": ("Hugo", "Marco", "Reed", "announcer", "croak", "f2", "grandpa", "linda", "m3", "m8", "sandro", "travis"),
}

#: eSpeak NG's English accents: American, British (eSpeak calls it plain ``en``), Scottish, Received Pronunciation,
#: Lancaster, West Midlands, Caribbean, New York.
ACCENTS: Final = (
    *("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"),
)
