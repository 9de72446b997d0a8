"""Hold a server's answers to what `dimml evaluate RUN --predictions FILE` said of the same clips.

Every label must be equal and every probability within 1e-3; exits 1 otherwise.

    dimml evaluate runs/grid_digit --predictions predictions.csv
    dimml serve --repository REPOSITORY
    python scripts/compare_served.py predictions.csv --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from dimml.errors import DimmlError
from dimml_client import Client

TOLERANCE = 1e-3
PATH, PROBABILITY = "path_", "probability_"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="http://… or grpc://…")
    parser.add_argument("--model", help="bundle, where several are served")
    arguments = parser.parse_args()

    with arguments.predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    heads = {f"{PROBABILITY}{column.removeprefix('label_')}" for column in rows[0] if column.startswith("label_")}
    wrong, largest = 0, 0.0
    with Client(arguments.url) as client:
        for row in rows:
            every = {column.removeprefix(PATH): value for column, value in row.items() if column.startswith(PATH)}
            # The table may name no file for a modality: it is not sent.
            paths = {name: value for name, value in every.items() if value}
            probabilities = {
                column.removeprefix(PROBABILITY): float(value)
                for column, value in row.items()
                if column.startswith(PROBABILITY) and column not in heads
            }
            # One recording with every track is sent as one file, as a user would.
            shared = Path(next(iter(paths.values()))) if len(set(every.values())) == 1 else None
            answer = client.predict(
                media=shared,
                parts=None if shared else {name: Path(path) for name, path in paths.items()},
                model=arguments.model,
                start_s=float(row["start_s"]) if row["start_s"] else None,
                end_s=float(row["end_s"]) if row["end_s"] else None,
                top_k=len(probabilities),
            )
            wrong += answer.label != row["predicted"]
            gaps = [abs(p.probability - probabilities[p.label]) for p in answer.predictions]
            largest = max(largest, *gaps)
    print(f"{len(rows)} clips: {wrong} labels differ, largest difference of a probability {largest:.2e}")
    return int(wrong > 0 or largest > TOLERANCE)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DimmlError, OSError) as error:
        sys.exit(f"error: {error}")
