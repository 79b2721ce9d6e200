"""Compares ways to find places without training, by recall.

    python -m benchmarks.pretrained --photos=ie_tower_320/images \
        --file=mobilenet_v2-b0353104.pth --exports=runs/own/export

The photographs lie in one folder per place, as `place_folders` reads them. All
queries are looked up among all database images; the right place is the query's
own. Candidates are cuts of a backbone with an aggregation; clusters and
whitening come from the database images. `--exports` adds networks that were
trained.

Candidates are to be chosen by the queries of a third of the places (those whose
name has a CRC-32 divisible by 3): the columns "chosen by". The other columns
are of the other places, and of all.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from sare_tf import serving
from sare_tf.dataset import image_decoding
from sare_tf.model import backbones, clusters, whitening
from sare_tf.model.embedder import make_aggregation
from sare_tf.search import exact_search

FLAGS = flags.FLAGS
flags.DEFINE_string("photos", None, "Folder with database/ and queries/.")
flags.DEFINE_string("backbone", "mobilenet_v2", "Name of the backbone.")
flags.DEFINE_string("file", None, "Its weights.")
flags.DEFINE_list(
    "candidates",
    [
        "features_10 netvlad 32",
        "features_13 netvlad 16",
        "features_13 netvlad 32",
        "features_13 netvlad 64",
        "features_13 gem",
        "features_16 netvlad 32",
        "features_17_conv_3 gem",
    ],
    "Cut, aggregation and clusters of each candidate; 'whitened 256' may "
    "follow. The last cut must be the deepest.",
)
flags.DEFINE_list("sizes", ["208x368", "240x320"], "Rows x columns.")
flags.DEFINE_list("exports", [], "Exports of other networks.")

_BATCH = 16
_SAMPLES = 500  # images, and locations of each, as `locate --photos` takes
_LOCATIONS = 100
_RECALL_AT = (1, 5, 10)


def list_photographs(folder: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Returns files, their places [N], and which are queries, bool [N]."""
    files = [
        path
        for role in ("database", "queries")
        for path in sorted((folder / role).glob("*/*"))
    ]
    places = np.array([path.parent.name for path in files])
    return files, places, np.array(["queries" in path.parts for path in files])


def batches(
    files: Sequence[Path], height: int, width: int
) -> Iterator[tf.Tensor]:
    """Yields decoded photographs, uint8 [B, height, width, 3]."""
    for start in range(0, len(files), _BATCH):
        encoded = [path.read_bytes() for path in files[start : start + _BATCH]]
        yield image_decoding.load_batch(
            tf.constant(encoded), height=height, width=width
        )[0]


class Candidate:
    """A cut with an aggregation: "features_13 netvlad 32 whitened 256"."""

    def __init__(self, text: str, backbone: keras.Model):
        words = text.split()
        self.text, self.whitened = text, 0
        if "whitened" in words:
            self.whitened = int(words.pop())
            words.pop()
        self.maps = backbone.get_layer(words[0]).output
        settings = {"num_clusters": int(words[2])} if words[2:] else {}
        self.layer = make_aggregation(words[1], **settings)
        self.layer.build(self.maps.shape)

    def initialise(self, maps: np.ndarray) -> None:
        """Sets the clusters of NetVLAD from feature maps [M, h, w, C]."""
        if not hasattr(self.layer, "centres"):
            return
        rng = np.random.default_rng(0)
        sample = []
        for image in maps.reshape(len(maps), -1, maps.shape[-1]):
            count = min(_LOCATIONS, len(image))
            sample.append(image[rng.choice(len(image), count, replace=False)])
        assignment, centres = clusters.netvlad_initial_weights(
            np.concatenate(sample), self.layer.num_clusters
        )
        self.layer.assignment.assign(assignment)
        self.layer.centres.assign(centres)

    def whiten(self, descriptors: np.ndarray, samples: np.ndarray):
        """Whitens descriptors [N, D], as samples [M, D] tell."""
        if not self.whitened:
            return descriptors
        fitted = whitening.fit(samples, self.whitened)
        return np.asarray(
            whitening.whiten(descriptors, fitted.projection, fitted.bias)
        )


def describe(
    files: Sequence[Path], is_query: np.ndarray, *, height: int, width: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each candidate and its descriptors [N, D]."""
    deepest = FLAGS.candidates[-1].split()[0]
    preprocessing, backbone = backbones.build(
        FLAGS.backbone, weights=FLAGS.file, cut_layer=deepest
    )
    candidates = [Candidate(text, backbone) for text in FLAGS.candidates]
    database = [file for file, q in zip(files, is_query, strict=True) if not q]
    chosen = np.random.default_rng(0).permutation(len(database))[:_SAMPLES]
    network = keras.Model(backbone.input, [one.maps for one in candidates])

    def maps_of(images):
        return network(preprocessing(images))

    def descriptors_of(images):
        pairs = zip(candidates, maps_of(images), strict=True)
        return [candidate.layer(maps) for candidate, maps in pairs]

    def computed(function, of_files):
        function = tf.function(function, reduce_retracing=True)
        parts = [function(b) for b in batches(of_files, height, width)]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    all_maps = computed(maps_of, [database[number] for number in chosen])
    for candidate, maps in zip(candidates, all_maps, strict=True):
        candidate.initialise(maps)
    all_descriptors = computed(descriptors_of, files)
    for candidate, descriptors in zip(candidates, all_descriptors, strict=True):
        yield (
            f"{candidate.text}, {height}x{width}",
            candidate.whiten(descriptors, descriptors[~is_query][chosen]),
        )


def recalls(
    descriptors: np.ndarray, places: np.ndarray, is_query: np.ndarray
) -> list[np.ndarray]:
    """Returns recall at 1, 5 and 10 of a third of places, the others, all."""
    rows, _ = exact_search.nearest(
        descriptors[is_query], descriptors[~is_query], max(_RECALL_AT)
    )
    asked = places[is_query]
    right = places[~is_query][rows] == asked[:, None]
    third = np.array([zlib.crc32(name.encode()) % 3 == 0 for name in asked])
    return [
        np.array([right[mask, :k].any(axis=1).mean() for k in _RECALL_AT])
        for mask in (third, ~third, np.ones(len(asked), bool))
    ]


def main(argv) -> None:
    del argv
    files, places, is_query = list_photographs(Path(FLAGS.photos))
    print(f"{is_query.sum()} queries, {(~is_query).sum()} database images.\n")
    print("| network | numbers | chosen by | other places | all |")
    print("|---|---:|---|---|---|")

    def report(name, descriptors):
        cells = [
            " / ".join(f"{value:.3f}" for value in values)
            for values in recalls(descriptors, places, is_query)
        ]
        print(f"| {name} | {descriptors.shape[1]} | {' | '.join(cells)} |")

    for export in FLAGS.exports:
        report(export, serving.load(export).embed_files(files)[0])
    for size in FLAGS.sizes:
        height, width = map(int, size.split("x"))
        for name, descriptors in describe(
            files, is_query, height=height, width=width
        ):
            report(name, descriptors)


if __name__ == "__main__":
    app.run(main)
