"""ModelNet10 and ModelNet40 as pictures: front and rear view of the twelve views of Su et al. 2015.

Layout: ``{class}/{train,test}/{object}.shaded_vNNN.png`` (or ``.jpg``), v001 to v012 around the object every 30
degrees; v001 is the front and v007 the rear, as the reference code of DI-MML takes them. The official split is the
folder. There is no validation split: 10 % of each class's training objects become one, by ``seed``.
"""

from __future__ import annotations

import re
from pathlib import Path

from dimml_training.recipes.splitting import hold_out
from dimml_training.recipes.table import Listing, Row, count_warning, folder

FRONT, REAR = "v001", "v007"
VALIDATION_SHARE = 0.1
#: Number of published objects, train and test, by number of classes; some releases of the views hold fewer.
OBJECTS = {10: 4899, 40: 12311}
_VIEW = re.compile(r"(?P<object>.+)\.shaded_(?P<view>v\d{3})\.(?P<suffix>png|jpg|jpeg)")


def list_modelnet(root: Path, *, seed: int = 0) -> Listing:
    """List one row per object: ``front`` and ``rear`` beneath root, label, split, and the object as ``subject``.

    An object with at least one view is listed; a missing front or rear view is reported later.
    """
    rows: list[Row] = []
    ignored: list[str] = []
    for split_folder in sorted(path for path in folder(root).glob("*/*") if path.name in {"train", "test"}):
        label, split = split_folder.parent.name, split_folder.name
        suffixes: dict[str, str] = {}
        for path in sorted(split_folder.iterdir()):
            match = _VIEW.fullmatch(path.name)
            if match:
                suffixes.setdefault(match["object"], match["suffix"])
            elif not path.name.startswith("."):
                ignored.append(f"{label}/{split}/{path.name}")
        for name, suffix in suffixes.items():
            views = {
                column: f"{label}/{split}/{name}.shaded_{view}.{suffix}"
                for column, view in (("front", FRONT), ("rear", REAR))
            }
            rows.append({**views, "label": label, "split": split, "subject": name})
    hold_out(rows, VALIDATION_SHARE, seed=seed)
    warnings = [f"{len(ignored)} files are not named as views and left out, such as {ignored[0]}"] if ignored else []
    classes = len({row["label"] for row in rows})
    published = next((objects for of_classes, objects in OBJECTS.items() if classes <= of_classes), 0)
    return Listing(rows, ["front", "rear"], warnings + count_warning(len(rows), published, "objects"))
