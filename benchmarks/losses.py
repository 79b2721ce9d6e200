"""Compares every loss on the rendered city, with the same budget.

    python -m benchmarks.losses

Trains the demo's network on the demo's city, at half the resolution. Each loss
is trained at several learning rates with the first seed. The rate with the best
validation recall@5 (then @1) is trained with the other seeds, too. All runs
over tuples see the same number of queries. The epoch of a run is chosen by
validation, as in training. The table has mean and standard deviation over seeds
of recall@1, 5 and 10 on the test district, by exact search. No choice depends
on the test district.

SARE has two rows, for the paper's inverse bandwidth, 1, and for a sharp one,
and with the Gaussian kernel a third one for a value between them. Margins are
those of the papers. A run that stops at a value that is not finite counts as
recall 0 at its rate.

A batch of a loss over places has as many images as a batch of tuples. Nothing
is mined, and an epoch has every place once, so these losses have more epochs to
see as many images. Losses of TensorFlow Similarity are left out where it is not
installed.

Runs are kept in `--folder`, and the command resumes where it was stopped.
"""

import importlib.util
import itertools
import statistics
from pathlib import Path

import keras
from absl import app, flags, logging

from sare_tf import build_records, losses, synthetic_city, train
from sare_tf.city.options import CityOptions
from sare_tf.evaluation import metrics
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import exact_search
from sare_tf.training import run_folder
from sare_tf.training.options import TrainingOptions
from sare_tf.training.split import Split

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "runs/benchmarks/losses", "Folder of the runs.")
flags.DEFINE_integer("city_places", 1000, "Places of the city.", 30)
flags.DEFINE_integer("num_epochs", 6, "Epochs of a run on tuples.", 1)
flags.DEFINE_integer("epoch_queries", 900, "Queries of an epoch on tuples.", 8)
flags.DEFINE_integer("place_epochs", 12, "Epochs of a run on places.", 1)
flags.DEFINE_list("rates", ["0.0005", "0.0015", "0.005"], "Learning rates.")
flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Seeds; rates are chosen with the first."
)
flags.DEFINE_list("only", [], "Rows to run. Default: all.")

_KS = (1, 5, 10)
# configs/demo.flags as it was when the benchmark was written, without the
# options that are compared.
_COMMON = {
    "image_height": 60,
    "image_width": 80,
    "backbone": "small",
    "num_clusters": 16,
    "optimizer": "adam",
    "weight_decay": 0.0001,
    "halve_every": 0,
    "tuples_per_batch": 8,
    "places_per_batch": 14,
    "images_per_place": 4,
    "num_negatives": 5,
    "negative_pool": 15,
    "refresh_every_queries": 0,
    "augment": ["crop", "colour"],
    "patience": 0,
}
_SHARP_BANDWIDTH = 15.0


def rows() -> dict[str, dict[str, object]]:
    """Returns the options of each row of the table, by its name."""
    options = {}
    for form, kernel, bandwidth in itertools.product(
        ("joint", "independent"),
        ("gaussian", "cauchy", "exponential"),
        (1.0, 4.0, _SHARP_BANDWIDTH),
    ):
        if kernel == "gaussian" or bandwidth != 4.0:
            options[f"sare_{form}-{kernel}-{bandwidth:g}"] = {
                "loss": f"sare_{form}",
                "kernel": kernel,
                "inverse_bandwidth": bandwidth,
            }
    for name in losses.TUPLE_LOSSES:
        if not name.startswith("sare_"):
            options[name] = {"loss": name}
    similarity = importlib.util.find_spec("tensorflow_similarity")
    for name in losses.PLACE_LOSSES:
        if similarity or not name.startswith("similarity_"):
            options[name] = {"loss": name}
    for form in ("joint", "independent"):
        options[f"place_sare_{form}"]["inverse_bandwidth"] = _SHARP_BANDWIDTH
    return options


def train_once(records: Path, folder: Path, options: dict) -> tuple | None:
    """Returns the best validation recall@5 and @1; None if it diverged."""
    try:
        train.run(_training(records, folder, options))
    except ValueError as error:
        if "finite" not in str(error):
            raise
        logging.warning("%s diverged: %s", folder.name, error)
        return None
    _, state = run_folder.read_state(folder)
    best = int(state["best"].removeprefix("epoch-"))
    recall = state["history"][best]["recall_at"]
    return recall["5"], recall["1"]


def test_recall(records: Path, folder: Path, options: dict) -> dict[int, float]:
    """Returns recall@N of the best epoch on the test district."""
    path = folder / "test_recall.json"
    if not path.is_file():
        _, state = run_folder.read_state(folder)
        network = keras.models.load_model(
            folder / state["best"] / "model.keras", compile=False
        )
        embedder = network.get_layer("embedder")
        split = Split(
            Records(records), "test", _training(records, folder, options)
        )
        neighbours, _ = exact_search.nearest(
            split.embed(embedder, split.queries),
            split.embed(embedder, split.database),
            max(_KS),
        )
        positives = split.positives(25.0)
        atomic_files.write_json(
            path, metrics.recall_at(neighbours, positives, _KS)
        )
    recall = atomic_files.read_json(path, made_by="python -m benchmarks.losses")
    return {k: recall[str(k)] for k in _KS}


def _training(records: Path, folder: Path, options: dict) -> TrainingOptions:
    return TrainingOptions(
        records=records, checkpoints=folder, **_COMMON, **options
    )


def measure_row(name: str, options: dict, records: Path, out: Path) -> str:
    """Trains at all rates and seeds; returns a row of the table."""
    first, *others = [int(seed) for seed in FLAGS.seeds]
    over_places = options["loss"] in losses.PLACE_LOSSES
    shared = {
        **options,
        "epochs": FLAGS.place_epochs if over_places else FLAGS.num_epochs,
        "queries_per_epoch": FLAGS.epoch_queries,
    }
    scores = {}
    for rate in FLAGS.rates:
        settings = {**shared, "learning_rate": float(rate), "seed": first}
        score = train_once(records, out / f"{name}-{rate}-{first}", settings)
        scores[rate] = score or (0.0, 0.0)
    rate = max(scores, key=scores.get)
    recalls = []
    for seed in (first, *others):
        settings = {**shared, "learning_rate": float(rate), "seed": seed}
        folder = out / f"{name}-{rate}-{seed}"
        if train_once(records, folder, settings) is None:
            recalls.append(dict.fromkeys(_KS, 0.0))
        else:
            recalls.append(test_recall(records, folder, settings))
        keras.backend.clear_session()
    cells = []
    for k in _KS:
        values = [recall[k] for recall in recalls]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
    return f"| {name} | {rate} | " + " | ".join(cells) + " |"


def main(argv) -> None:
    del argv
    # Runs of another budget belong to another table.
    budget = (FLAGS.city_places, FLAGS.num_epochs, FLAGS.epoch_queries)
    out = Path(FLAGS.folder) / "-".join(map(str, budget))
    city = synthetic_city.run(
        CityOptions(out=out / "city", places=FLAGS.city_places)
    )
    records = build_records.run(
        RecordOptions(dataset=city, records=out / "records")
    )
    wanted = {
        name: options
        for name, options in rows().items()
        if not FLAGS.only or name in FLAGS.only
    }
    lines = [
        f"{FLAGS.city_places} places, {FLAGS.num_epochs} epochs of "
        f"{FLAGS.epoch_queries} queries, or {FLAGS.place_epochs} of places; "
        f"seeds {', '.join(FLAGS.seeds)}; test district, mean ± standard "
        "deviation.",
        "",
        "| loss | rate | R@1 | R@5 | R@10 |",
        "|---|---|---|---|---|",
    ]
    for name, options in wanted.items():
        lines.append(measure_row(name, options, records, out))
        logging.info("%s", lines[-1])
    print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)
