"""Sequences, and neighbours of neighbours, on an office tower.

    python -m benchmarks.sequences --dataset=ie_tower_320 \
        --weights=mobilenet_v2-b0353104.pth

Everything is done by commands: `locate --photos` makes the export, with an
untrained MobileNetV2 whose clusters and whitening are fitted to
images/database; then `build_records`, `index` and `evaluate`. What is there is
not made again.

`same walk` asks every second frame of a clip among the others; its place is the
clip, and a frame is right if it is the one before or after. `another walk` asks
every second clip of a floor among the others; its place is the floor. A clip,
or floor, is of val if the CRC-32 of its name is odd, and of test otherwise.

The first table is recall@1 of single frames and of sequences, by their length;
beside it, of the answers whose probability is above 0.5, their number and the
share that is right. The second is of what looks at neighbours of neighbours.
With --split=val, both are of val.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from absl import app, flags

from benchmarks import tower

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "Folder of metadata.csv and images/.")
flags.DEFINE_string("weights", None, "Weights of ImageNet, torchvision's file.")
flags.DEFINE_string("folder", "runs/benchmarks/sequences", "Folder of results.")
flags.DEFINE_enum("split", "test", ["val", "test"], "Split that is asked.")

_LENGTHS = (3, 5, 10)
_METHODS = ("seqslam", "smoothing", "filter", "average")
_NEIGHBOURS = {
    "expansion": {"expand_queries": 10},
    "diffusion": {"rerank": "diffusion", "rerank_top": 1000},
    "offline_diffusion": {"rerank": "offline_diffusion", "rerank_top": 1000},
    "k_reciprocal": {"rerank": "k_reciprocal", "rerank_top": 100},
}
_LIKELY = 0.5
# Of each table: the column of the place, and what evaluate takes for right.
_WALKS = {
    "same_walk": ("clip", {"protocol": "frames", "positive_frames": 1}),
    "another_walk": ("floor", {"protocol": "place", "positives": "place"}),
}


def rows(walk: str, dataset: Path) -> Iterator[dict[str, str]]:
    """Yields the lines of a table.

    Args:
        walk: a key of `_WALKS`.
        dataset: with metadata.csv.
    """
    frames = tower.frames(dataset)
    clips = sorted({(frame["floor"], frame["clip"]) for frame in frames})
    is_asked, last, number = {}, None, 0
    for floor, clip in clips:
        number = number + 1 if floor == last else 0
        is_asked[clip], last = number % 2 == 1, floor
    place, _ = _WALKS[walk]
    for frame in frames:
        is_query = is_asked[frame["clip"]]
        if walk == "same_walk":
            is_query = int(frame["frame"]) % 2 == 0
        yield {
            "path": frame["image"],
            "place": frame[place],
            "split": "val" if tower.remainder(frame[place], 2) else "test",
            "role": "query" if is_query else "database",
            "sequence": frame["clip"],
            "frame": frame["frame"],
        }


class Runs:
    """Makes what the tables need.

    Args:
        dataset: with metadata.csv.
        folder: of the results.
        weights: file of the weights of ImageNet.
    """

    def __init__(self, dataset: Path, folder: Path, weights: str):
        self._dataset, self._folder = dataset, folder
        self._stage = tower.Stage(weights=weights, cache=folder / "cache")

    def evaluation(self, walk: str, name: str, **options) -> Path:
        """Returns the folder of an evaluation.

        Args:
            walk: a key of `_WALKS`.
            name: of the evaluation.
            options: flags of evaluate, beside those of the walk.
        """
        table = self._folder / walk
        records = table / "records"
        if not (records / "manifest.parquet").is_file():
            tower.write(table, self._dataset, rows(walk, self._dataset))
        self._stage(
            "build_records",
            records / "manifest.parquet",
            reader="csv_table",
            dataset=table,
            records=records,
        )
        made_of = {
            "records": records,
            "export": self._stage.untrained(
                self._dataset / "images" / "database"
            ),
            "index": table / f"index_{FLAGS.split}",
            "split": FLAGS.split,
        }
        self._stage(
            "index",
            made_of["index"] / "diffusion.json",
            neighbour_graph=50,
            offline_diffusion=1000,
            **made_of,
        )
        out = table / f"evaluations_{FLAGS.split}" / name
        self._stage(
            "evaluate",
            out / "metrics.json",
            **made_of,
            evaluation=out,
            baseline_images=0,
            **_WALKS[walk][1],
            **options,
        )
        return out


def _metrics(evaluation: Path) -> dict[str, Any]:
    return json.loads((evaluation / "metrics.json").read_text())


def _sequence_line(runs: Runs, walk: str, method: str) -> str:
    cells = [walk.replace("_", " "), f"`{method}`"]
    for length in _LENGTHS:
        evaluation = runs.evaluation(
            walk,
            f"{method}_{length}",
            sequence_method=method,
            sequence_length=length,
        )
        metrics = _metrics(evaluation)
        if length == _LENGTHS[0]:
            single = metrics["single_frames"]["recall_at"]["1"]
            cells.append(f"{single:.3f}")
        queries = pd.read_csv(evaluation / "queries.csv")
        likely = queries[queries["confidence"] > _LIKELY]
        right = (likely["first_correct_rank"] == 1).mean()
        recall = metrics["recall_at"]["1"]
        cells.append(f"{recall:.3f} ({right:.2f} of {len(likely)})")
    return f"| {' | '.join(cells)} |"


def _neighbour_line(runs: Runs, name: str) -> str:
    cells = []
    for walk in _WALKS:
        options = _NEIGHBOURS[name]
        metrics = _metrics(runs.evaluation(walk, name, **options))
        if walk == "same_walk":
            given = (f"--{flag}={value}" for flag, value in options.items())
            cells.append(f"`{' '.join(given)}`")
        for found in (metrics["without_rerank"], metrics):
            recalls = (f"{found['recall_at'][k]:.3f}" for k in ("1", "5"))
            cells.append(" / ".join(recalls))
        times = metrics["landmarks"]["ms_per_query"].items()
        cells.append(", ".join(f"{part} {ms:.2f}" for part, ms in times))
    return f"| {' | '.join(cells)} |"


def main(argv) -> None:
    del argv
    runs = Runs(Path(FLAGS.dataset), Path(FLAGS.folder), FLAGS.weights)
    lengths = " | ".join(map(str, _LENGTHS))
    print(f"| | `--sequence_method` | single frames | {lengths} |")
    print("|---|---|---:|" + "---:|" * len(_LENGTHS))
    for walk in _WALKS:
        for method in _METHODS:
            print(_sequence_line(runs, walk, method), flush=True)
    of_walk = "without, R@1 / R@5 | with | ms a query"
    print(f"\n| | same walk: {of_walk} | another walk: {of_walk} |")
    print("|---|---|---|---|---|---|---|")
    for name in _NEIGHBOURS:
        print(_neighbour_line(runs, name), flush=True)


if __name__ == "__main__":
    app.run(main)
