"""Compares losses in fine-tuning, on photographs and on what they are not of.

    python -m benchmarks.finetuning --spots=ie_tower_320/images \
        --file=mobilenet_v2-b0353104.pth

MobileNetV2 of torchvision under NetVLAD, which starts from the clusters of the
training images, is trained on spots of the photographs, in `place_folders`. A
seed splits the spots into train, val and test, 0.5, 0.2 and 0.3 of them, and
decides clusters and batches. Columns of recall "spots" ask the queries of the
split's spots among its database images. Columns "city" ask a rendered city,
one for val and one for test, which has nothing in common with the photographs:
what is lost there was forgotten.

Training is that of `train`: batches of `place_batches`, `PlaceNetwork`, AdamW
with a cosine, without augmentation and without a choice of the epoch. The first
half of the backbone is frozen, so its feature maps are computed once and kept
in memory. "all" in the name of a row: no layer is frozen.

The rate of a row is chosen with the first seed; then the other seeds follow.
SARE and Multi-Similarity also have the best rate of those that forget little.
Remedies against forgetting are rows of their own, with all seeds. All choices
are made by val: the recall@1 of spots, then the mean reciprocal rank. The
chosen remedy is the best one of those that lose at most 2 points in the cities
of val. "x 0.5" is the average of the weights before and after training.

Each run is a line in `--folder`/runs.jsonl, and is not repeated. `--only`
names rows, `--print` trains nothing and prints the table of what is there.
"""

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, flags, logging

from benchmarks import finetuning_runs
from benchmarks.finetuning_runs import UNTRAINED

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "runs/benchmarks/finetuning", "Folder of runs.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of splits and training.")
flags.DEFINE_list("rates", ["0.0001", "0.0003", "0.001"], "Rates to choose.")
flags.DEFINE_list("only", [], "Rows to run. Default: all.")
flags.DEFINE_boolean("print", False, "Only print the table.")

_MOST_LOST = 0.02
# Rows that remedies are tried on, and whose weights are averaged.
_FIRST = ("SARE b=10", "Multi-Similarity")
_ALL = {"train_from": "features_0_0", "cache_frozen": False}


def _sare(bandwidth: float, **more) -> dict:
    return {
        "loss": "place_sare_joint",
        "inverse_bandwidth": bandwidth,
        **more,
    }


def losses() -> dict[str, dict]:
    """Returns the options of each loss that is compared, by its row."""
    rows = {f"SARE b={b}": _sare(b) for b in (10, 1, 5, 20, 40)}
    rows["Multi-Similarity"] = {"loss": "place_multi_similarity"}
    rows["Multi-Similarity without its miner"] = {
        "loss": "place_multi_similarity",
        "place_miner": "none",
    }
    rows["SARE independent b=10"] = {
        "loss": "place_sare_independent",
        "inverse_bandwidth": 10,
    }
    for kernel in ("cauchy", "exponential"):
        rows[f"SARE {kernel} b=10"] = _sare(10, kernel=kernel)
    for name in (
        "nt_xent",
        "sup_con",
        "circle",
        "triplet_semihard",
        "contrastive",
        "fast_ap",
        "cosface",
        "triplet_hard",
        "n_pairs",
        "lifted_structure",
    ):
        rows[name] = {"loss": f"place_{name}"}
    return rows


def remedies() -> dict[str, dict]:
    """Returns the options of each remedy against forgetting, by its row."""
    settings = {
        "backbone_rate=0.1": {"backbone_rate": 0.1},
        "netvlad_rate=0.1": {"netvlad_rate": 0.1},
        "l2_to_start=100": {"l2_to_start": 100.0},
        "averaging_momentum=0.98": {"averaging_momentum": 0.98},
    }
    rows = {}
    for name, remedy in settings.items():
        rows[f"SARE b=10 {name}"] = _sare(10, **remedy)
    rows["SARE b=10 all"] = _sare(10, **_ALL)
    return rows


class Results:
    """The runs that are there: a JSON object per line.

    Attributes:
        runs: {(row, rate, seed): what was measured}.
    """

    def __init__(self, path: Path):
        self._path = path
        self.runs = {}
        lines = path.read_text().splitlines() if path.is_file() else []
        for line in lines:
            # A kill may have left half of the last line.
            if line.endswith("}"):
                run = json.loads(line)
                self.runs[run["row"], run["rate"], run["seed"]] = run
        if lines and not lines[-1].endswith("}"):
            path.write_text("".join(f"{line}\n" for line in lines[:-1]))

    def add(self, run: dict) -> None:
        """Appends a run."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(run) + "\n")
        self.runs[run["row"], run["rate"], run["seed"]] = run

    def of(self, row: str, rate: str, share: str) -> dict[int, dict]:
        """Returns {seed: {part: recall}}, with a share of the change."""
        shares = {
            seed: self.runs[row, rate, seed]["shares"]
            for seed in _seeds()
            if (row, rate, seed) in self.runs
        }
        return {
            seed: of_seed[share]
            for seed, of_seed in shares.items()
            if share in of_seed
        }

    def best_rate(self, row: str, rates: Sequence[str]) -> str:
        """Returns the rate that is best on val with the first seed."""

        def score(rate):
            run = self.runs.get((row, rate, _seeds()[0]))
            if run is None:
                return (-1.0,)
            return _score(run["shares"]["1"])

        return max(rates, key=score)

    def keeping_rate(self, row: str, rates: Sequence[str]) -> str:
        """Returns the best rate of those that forget little, by `best_rate`.

        A rate also counts by an average of weights. The lowest rate if none
        forgets little.
        """
        first = _seeds()[0]
        before = self.of(UNTRAINED, "0", "1")
        candidates = {}
        for rate, share in itertools.product(rates, finetuning_runs.SHARES):
            after = self.of(row, rate, share)
            if first in after and _keeps(before, {first: after[first]}):
                candidates[rate, share] = _score(after[first])
        if not candidates:
            return min(rates, key=float)
        return max(candidates, key=candidates.get)[0]

    def table_rates(self, row: str) -> list[str]:
        """Returns the rates of a row that have several seeds, or are best."""
        if row == UNTRAINED:
            return ["0"]
        seeds = {}
        for name, rate, seed in self.runs:
            if name == row:
                seeds.setdefault(rate, set()).add(seed)
        best = self.best_rate(_loss_row(row), FLAGS.rates)
        return sorted(
            (r for r in seeds if r == best or len(seeds[r]) > 1), key=float
        )


def _keeps(before: dict[int, dict], after: dict[int, dict]) -> bool:
    gained = statistics.mean(_gains(before, after, "city_val"))
    return gained >= -_MOST_LOST


def _score(measured: dict) -> tuple[float, ...]:
    val = measured["spots_val"]
    return val["recall@1"], val["mrr"]


def _seeds() -> list[int]:
    return [int(seed) for seed in FLAGS.seeds]


def train_all(results: Results) -> None:
    """Makes the runs that are not there yet, the most telling ones first."""
    folder = Path(FLAGS.folder)

    def run(row, options, rates, seeds):
        if FLAGS.only and row not in FLAGS.only:
            return
        for seed in seeds:
            left = [r for r in rates if (row, r, seed) not in results.runs]
            if not left:
                continue
            trained = finetuning_runs.Run(folder, options, seed=seed)
            for rate in left:
                begin = time.monotonic()
                is_mixed = row in _FIRST or row not in losses()
                shares = trained.measure(
                    float(rate),
                    finetuning_runs.SHARES if is_mixed else ("1",),
                )
                seconds = round(time.monotonic() - begin, 1)
                results.add(
                    {
                        "row": row,
                        "rate": rate,
                        "seed": seed,
                        "seconds": seconds,
                        "shares": shares,
                    }
                )
                last = shares["1"]
                logging.info(
                    "%s, rate %s, seed %d: spots of val %.3f, %.0f s",
                    row,
                    rate,
                    seed,
                    last["spots_val"]["recall@1"],
                    seconds,
                )

    run(UNTRAINED, {}, ["0"], _seeds())
    rows = losses()

    def run_loss(row):
        run(row, rows[row], FLAGS.rates, _seeds()[:1])
        rate = results.best_rate(row, FLAGS.rates)
        run(row, rows[row], [rate], _seeds())

    for row in _FIRST:
        run_loss(row)
        rate = results.keeping_rate(row, FLAGS.rates)
        run(row, rows[row], [rate], _seeds())
    for row in rows:
        run_loss(row)
    for seed in _seeds():
        for row, options in remedies().items():
            rate = results.best_rate(_loss_row(row), FLAGS.rates)
            run(row, options, [rate], [seed])


def _loss_row(row: str) -> str:
    """Returns the row whose rate a remedy takes."""
    names = sorted(losses(), key=len, reverse=True)
    return next(name for name in names if row.startswith(name))


def table(results: Results) -> Iterator[str]:
    """Yields the lines of the table."""
    before = results.of(UNTRAINED, "0", "1")
    yield f"{len(before)} seeds: {', '.join(FLAGS.seeds)}; mean ± deviation."
    yield ""
    yield (
        "| row | rate | seeds | spots of val R@1 | cities of val R@1 | spots "
        "R@1 | R@5 | more than untrained | cities R@1 | more than untrained |"
    )
    yield "|---|---|---:|---|---|---|---|---|---|---|"
    for row in (UNTRAINED, *losses(), *remedies()):
        for rate, share in itertools.product(
            results.table_rates(row), finetuning_runs.SHARES
        ):
            after = results.of(row, rate, share)
            if not after or (share != "1" and row == UNTRAINED):
                continue
            name = row if share == "1" else f"{row} x {share}"
            yield _line(name, rate, before, after)


def _line(
    name: str, rate: str, before: dict[int, dict], after: dict[int, dict]
) -> str:
    def cell(part, value="recall@1"):
        return _mean([one[part][value] for one in after.values()])

    def gain(part):
        return _mean(_gains(before, after, part))

    cells = [
        name,
        rate,
        str(len(after)),
        cell("spots_val"),
        cell("city_val"),
        cell("spots_test"),
        cell("spots_test", "recall@5"),
        gain("spots_test"),
        cell("city_test"),
        gain("city_test"),
    ]
    return f"| {' | '.join(cells)} |"


def _gains(before: dict[int, dict], after: dict[int, dict], part: str):
    """Returns by how much recall@1 is higher than before, of each seed."""
    return [
        one[part]["recall@1"] - before[seed][part]["recall@1"]
        for seed, one in after.items()
    ]


def _mean(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def chosen(results: Results) -> str:
    """Returns what val chooses among rows, remedies and shares."""
    before = results.of(UNTRAINED, "0", "1")
    candidates = {}
    for row in (*losses(), *remedies()):
        for rate, share in itertools.product(
            results.table_rates(row), finetuning_runs.SHARES
        ):
            after = results.of(row, rate, share)
            if len(after) == len(before) and _keeps(before, after):
                name = f"{row} x {share}, rate {rate}"
                candidates[name] = statistics.mean(
                    one["spots_val"]["recall@1"] for one in after.values()
                )
    if not candidates:
        return "none"
    best = max(candidates, key=candidates.get)
    return f"{best} (spots of val {candidates[best]:.3f})"


def main(argv) -> None:
    del argv
    results = Results(Path(FLAGS.folder) / "runs.jsonl")
    if not FLAGS.print:
        train_all(results)
    print("\n".join(table(results)))
    print(f"\nChosen by val, with at most 2 points lost: {chosen(results)}.")


if __name__ == "__main__":
    app.run(main)
