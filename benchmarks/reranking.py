"""Re-ranking by geometry on an office tower: retrieval, inliers, both.

    python -m benchmarks.reranking --dataset=ie_tower_320 \
        --weights=mobilenet_v2-b0353104.pth --xfeat=xfeat.pt

Everything is done by commands: `build_records`, `train`, `export`, `locate
--photos`, `index`, `evaluate` and `compare`. What is there is not made again.

Floors are divided by the CRC-32 of their names into three thirds. The third 1
trains the descriptors, on its clips as places: `configs/own_photos.flags`,
`configs/own_photos_from_scratch.flags`, and the clusters and the whitening of
an untrained MobileNetV2, that of `locate --photos`. Of the two other thirds,
each is asked once, while the other one is val, where evaluate measures
threshold and weight.

`clip` asks for the clip of a query, among images of the same walk. `floor` asks
for its floor, where images of its own clip are left out (--other_sequence): the
walk is another one. "By inliers" is the order by inliers only. The interval is
that of `compare`, of the difference between the new order and retrieval. The
second table is of `clip` with --calibrate: photographs of the third 1 are asked
with the queries, as distractors.
"""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import tower
from sare_tf.runtime import package_files

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "Folder of metadata.csv and images/.")
flags.DEFINE_string("weights", None, "Weights of ImageNet, torchvision's file.")
flags.DEFINE_string("xfeat", None, "Weights of XFeat; None: without its rows.")
flags.DEFINE_string("folder", "runs/benchmarks/reranking", "Folder of results.")

_TRAINING = 1
_ASKED = (0, 2)
# Clips of training by which `train` chooses an epoch: one of so many.
_VALIDATION = 5
_TRAINED = {
    "from scratch": "own_photos_from_scratch",
    "fine-tuned": "own_photos",
}
_UNTRAINED = "untrained"
_DESCRIPTORS = (_UNTRAINED, "fine-tuned", "from scratch")
# Local features and geometries, of all descriptors, and of the untrained one.
_FIRST = ("rootsift", "homography")
_OTHERS = (
    ("rootsift", "fundamental"),
    ("xfeat", "homography"),
    ("xfeat", "fundamental"),
)
_RULES = ("clip", "floor")
_LIMIT = 0.8


@dataclasses.dataclass(frozen=True)
class Row:
    """What is asked, and how.

    Attributes:
        rule: "clip" or "floor".
        third: of the floors that are asked.
        descriptor: one of `_DESCRIPTORS`.
        local: local features; empty for the order of retrieval.
        geometry: on which they agree.
    """

    rule: str
    third: int
    descriptor: str
    local: str = ""
    geometry: str = "homography"

    @property
    def is_calibrated(self) -> bool:
        """Whether --calibrate measures how sure answers are."""
        return self.rule == "clip" and (
            not self.local or (self.local, self.geometry) == _FIRST
        )


def rows() -> Iterator[Row]:
    """Yields the rows of the table."""
    asked = itertools.product(_DESCRIPTORS, _RULES, _ASKED)
    for descriptor, rule, third in asked:
        yield Row(rule, third, descriptor, *_FIRST)
    for rule, third in itertools.product(_RULES, _ASKED):
        for other in _OTHERS:
            yield Row(rule, third, _UNTRAINED, *other)


class Runs:
    """Makes what the rows need.

    Args:
        dataset: with metadata.csv.
        folder: of the results.
        weights: file of the weights of ImageNet.
    """

    def __init__(self, dataset: Path, folder: Path, weights: str):
        self._dataset, self._folder, self._weights = dataset, folder, weights
        self._stage = tower.Stage(weights=weights, cache=folder / "cache")
        self._frames = tower.frames(dataset)
        self._photos = folder / "photos"

    def evaluate(self, row: Row) -> Mapping[str, Any]:
        """Returns metrics.json of a row."""
        path = self._evaluation(row)
        return json.loads((path / "metrics.json").read_text())

    def compare(self, row: Row) -> Mapping[str, Any]:
        """Returns the figures of the new order beside those of retrieval."""
        plain = dataclasses.replace(row, local="", geometry="homography")
        runs = [self._evaluation(plain), self._evaluation(row)]
        path = self._stage.compare(
            runs[1].with_name("compare_" + runs[1].name), runs
        )
        return json.loads(path.read_text())["runs"][1]["figures"]["recall@1"]

    def _evaluation(self, row: Row) -> Path:
        asked = self._folder / f"{row.rule}_{row.third}"
        index = asked / row.descriptor.replace(" ", "_")
        made_of = {
            "records": self._records(row, asked),
            "export": self._export(row.descriptor),
            "index": index,
        }
        self._stage("index", index / "index.json", **made_of)
        name = "_".join([index.name, row.local or "plain", row.geometry])
        options = {}
        if row.rule == "floor":
            options["other_sequence"] = True
        if row.local:
            options |= {
                "rerank": self._local_features(row.local),
                "rerank_geometry": row.geometry,
            }
        if row.is_calibrated:
            options |= {
                "calibrate": True,
                "distractors": self._photos / "train" / "queries",
            }
        out = asked / "evaluations" / name
        self._stage(
            "evaluate",
            out / "metrics.json",
            **made_of,
            evaluation=out,
            protocol="place",
            positives="place",
            baseline_images=0,
            **options,
        )
        return out

    def _records(self, row: Row, asked: Path) -> Path:
        records = asked / "records"
        if not (records / "manifest.parquet").is_file():
            tower.write(asked, self._dataset, self._table(row))
        self._stage(
            "build_records",
            records / "manifest.parquet",
            reader="csv_table",
            dataset=asked,
            records=records,
        )
        return records

    def _table(self, row: Row) -> Iterator[dict[str, str]]:
        for frame in self._frames:
            third = tower.remainder(frame["floor"], 3)
            if third == _TRAINING:
                continue
            yield {
                "path": frame["image"],
                "place": frame[row.rule],
                "split": "test" if third == row.third else "val",
                "role": "query" if frame["split"] == "query" else "database",
                "sequence": frame["clip"],
                "frame": frame["frame"],
            }

    def _export(self, descriptor: str) -> Path:
        self._copy_photos()
        if descriptor == _UNTRAINED:
            return self._stage.untrained(self._photos / "train" / "database")
        name = _TRAINED[descriptor]
        folder = self._folder / name
        options = {
            "flagfile": package_files.flagfile(name),
            "dataset": self._photos,
            "records": folder / "records",
            "checkpoints": folder / "checkpoints",
            "export": folder / "export",
        }
        if name == "own_photos":
            options["weights"] = self._weights
        done = folder / "export" / "1" / "sare_tf.json"
        for stage in () if done.is_file() else ("build_records", "train"):
            self._stage(stage, None, **options)
        self._stage("export", done, **options)
        return folder / "export"

    def _copy_photos(self) -> None:
        """Copies the clips of training as folders of places."""
        if self._photos.is_dir():
            return
        unfinished = self._photos.with_name("unfinished_photos")
        for frame in self._frames:
            if tower.remainder(frame["floor"], 3) != _TRAINING:
                continue
            is_val = not tower.remainder(frame["clip"], _VALIDATION)
            path = Path(frame["image"])
            target = (
                unfinished
                / ("val" if is_val else "train")
                / ("queries" if frame["split"] == "query" else "database")
                / frame["clip"]
                / path.name
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._dataset / path, target)
        unfinished.rename(self._photos)

    def _local_features(self, name: str) -> str | Path:
        if name != "xfeat":
            return name
        out = self._folder / "xfeat"
        self._stage(
            "export_local_features",
            out / "1" / "saved_model.pb",
            source=FLAGS.xfeat,
            out=out,
        )
        return out


def _combination_line(runs: Runs, row: Row) -> str:
    metrics, compared = runs.evaluate(row), runs.compare(row)
    figures = metrics["rerank"]
    recalls = [
        metrics["without_rerank"]["recall_at"]["1"],
        figures["recall_at_by_inliers"]["1"],
        metrics["recall_at"]["1"],
    ]
    low, high = compared["difference_interval"]
    cells = [
        row.rule,
        str(row.third),
        str(metrics["counts"]["queries"]),
        row.descriptor,
        f"`{row.local}`, {row.geometry}",
        *(f"{recall:.3f}" for recall in recalls),
        f"{recalls[2] - max(recalls[:2]):+.3f}",
        f"{low:+.3f} to {high:+.3f}",
        f"{figures['made_right']} / {figures['made_wrong']}",
    ]
    return f"| {' | '.join(cells)} |"


def _doubt_line(runs: Runs, row: Row) -> str:
    metrics = runs.evaluate(row)
    doubt = metrics["doubt"]
    combined = doubt["scores"]["combined"]
    (at,) = (one for one in doubt["rejection"] if one["reject_below"] == _LIMIT)
    cells = [
        row.descriptor,
        str(row.third),
        f"`{row.local}`" if row.local else "none",
        f"{metrics['recall_at']['1']:.3f}",
        f"{combined['average_precision']:.3f}",
        f"{combined['recall_at_precision']['99']:.3f}",
        f"{combined['expected_calibration_error']:.3f}",
        *(
            f"{at[name]} of {at[of]}"
            for name, of in (
                ("right_rejected", "right"),
                ("wrong_accepted", "wrong"),
                ("distractors_accepted", "distractors"),
            )
        ),
    ]
    return f"| {' | '.join(cells)} |"


def main(argv) -> None:
    del argv
    runs = Runs(Path(FLAGS.dataset), Path(FLAGS.folder), FLAGS.weights)
    print(
        "| asked | third | queries | descriptor | local features | retrieval | "
        "by inliers | new order | above the better one | above retrieval, 95 % "
        "| right / wrong |\n|---|---|---:|---|---|---:|---:|---:|---:|---|---|"
    )
    for row in rows():
        if row.local != "xfeat" or FLAGS.xfeat:
            print(_combination_line(runs, row), flush=True)
    print(
        "\n| descriptor | third | re-ranked by | recall@1 | average precision "
        "| recall at 99 % precision | calibration error | right rejected "
        f"below {_LIMIT:g} | wrong accepted | distractors accepted |\n"
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for descriptor, third in itertools.product(_DESCRIPTORS, _ASKED):
        for local in ("", _FIRST[0]):
            row = Row("clip", third, descriptor, local)
            print(_doubt_line(runs, row), flush=True)


if __name__ == "__main__":
    app.run(main)
