"""ScaNN: approximate search by stated rules, built, written, loaded, searched.

Descriptors are float [N, D], rows of unit length; distances are squared
Euclidean, 2 - 2 times the product. Neighbours are rows, nearest first.

Below 20,000 rows ScaNN compares a query with all of them. Above, it searches a
tree with SOAR, compares by asymmetric hashing in the leaves, and computes the
distances of the best rows again, which is called reordering.

Reordering from memory, ScaNN holds all rows as float32. Building a tree takes
three times the memory of that, and twice that of the rows that train it, at
most 2 GiB (measured: 3.5 times at 60,000 x 512 with a fifth of the rows in
training, 5 times with all of 30,000 x 1,024). Searching takes twice the
descriptors.

Reordering from disk, ScaNN holds only its codes, D / 4 bytes a row, twice with
SOAR. The tree is built of the rows that train it, and the others are added
block by block. The best rows are read from the file of the descriptors.
"""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

# Smaller databases are searched by brute force: ScaNN's docs/algorithms.md.
TREE_FROM = 20_000
# Share of leaves searched. Ours: recall@10 is 0.93 to 0.998 on clustered data
# of 256 and 16 dimensions, 20,500 rows.
_LEAVES_SEARCHED = 0.2
# At most so many rows train the tree and the codebook, and so many numbers in
# them: 2 GiB. Fewer rows than all cost recall. Ours.
_TRAINING_SAMPLE = 250_000
_TRAINING_NUMBERS = 1 << 29
# The same for reordering from disk, which is to take little memory: ScaNN holds
# them up to nine times (measured at 100,000 and 250,000 x 512).
_DISK_SAMPLE = 100_000
_DISK_NUMBERS = 1 << 27
# More rows train a tree whose leaves would have fewer of them than this, as far
# as the numbers allow. FAISS warns below 39 for a centroid; ours.
_TRAINING_A_LEAF = 64
# ScaNN's docs/algorithms.md.
_DIMENSIONS_PER_BLOCK = 2
# Numbers that are added to a tree, or reordered, at a time: 64 MiB. Ours.
_HELD_NUMBERS = 1 << 24
# Rows that ScaNN adds together. Ours.
_ADDED_TOGETHER = 256
# Neighbours that the settings above are for, and the query where it is a row
# itself. For k of them, the power of k that leaves grow with, and rows
# reordered, times k. Ours.
_NEIGHBOURS = 11
_MORE_LEAVES = 0.25
_MORE_REORDERED = 8

# Of a tree for up to k neighbours: k, leaves (to search), reordered (rows) and
# recall, which is None where it was not measured.
Setting = dict[str, Any]


def rules(
    *, count: int, dimension: int, reorder_from: str = "memory"
) -> dict[str, Any]:
    """Chooses ScaNN's parameters for a database.

    The tree has about sqrt(count) leaves. Its k-means is seeded by kmeans++,
    not at random, so that the same descriptors give the same index; with SOAR
    a row near the border of two leaves is kept in both.

    Args:
        count: rows of the database.
        dimension: descriptor length.
        reorder_from: "memory" or "disk".

    Returns:
        Parameters of `Searcher.build`, as JSON holds them. The searcher "exact"
        is none: few rows on disk are compared without ScaNN.
    """
    if count < TREE_FROM:
        is_held = reorder_from == "memory"
        return {"searcher": "brute_force" if is_held else "exact"}
    num_leaves = round(math.sqrt(count))
    return {
        "searcher": "tree",
        "num_leaves": num_leaves,
        "num_leaves_to_search": math.ceil(_LEAVES_SEARCHED * num_leaves),
        "training_sample_size": training_sample_size(
            count=count,
            dimension=dimension,
            num_leaves=num_leaves,
            reorder_from=reorder_from,
        ),
        "soar_lambda": 1.5,
        "dimensions_per_block": _DIMENSIONS_PER_BLOCK,
        "anisotropic_quantization_threshold": 0.2,
        # AlloyDB's tuning pages: more from 500 dimensions on.
        "reordering_num_neighbors": 200 if dimension < 500 else 400,
        "reorder_from": reorder_from,
    }


def training_sample_size(
    *, count: int, dimension: int, num_leaves: int, reorder_from: str
) -> int:
    """Returns how many rows train a tree.

    Args:
        count: rows of the database.
        dimension: descriptor length.
        num_leaves: leaves of the tree; at least so many rows train it.
        reorder_from: "memory" or "disk".
    """
    rows, numbers = _TRAINING_SAMPLE, _TRAINING_NUMBERS
    if reorder_from == "disk":
        rows, numbers = _DISK_SAMPLE, _DISK_NUMBERS
    rows = max(rows, _TRAINING_A_LEAF * num_leaves)
    return max(min(count, rows, numbers // dimension), num_leaves)


def scann_module():
    """Returns the scann module; None, with a warning, if it is not usable."""
    try:
        return importlib.import_module("scann")
    except (ImportError, tf.errors.NotFoundError) as error:
        # NotFoundError: its library was built for another TensorFlow.
        reason = str(error).splitlines()[0]
        logging.warning("ScaNN is not usable (%s): exact search.", reason)
        return None


class Searcher:
    """A ScaNN searcher.

    Attributes:
        parameters: as `rules` returns them. A tree's num_leaves_to_search and
            reordering_num_neighbors may be changed at any time.
    """

    def __init__(
        self,
        searcher: Any,
        parameters: dict[str, Any],
        settings: Sequence[Setting] | None = None,
        *,
        stored: np.ndarray | None = None,
    ):
        self._searcher = searcher
        self._stored = stored
        self._order = None
        if parameters.get("reorder_from") == "disk":
            self._order = _order(stored, parameters)
        self._settings = settings
        self._parallel = True
        self.parameters = parameters

    @classmethod
    def build(
        cls,
        scann: Any,
        descriptors: np.ndarray,
        parameters: dict[str, Any],
        *,
        stored: np.ndarray | None = None,
    ) -> "Searcher":
        """Builds a searcher over descriptors [N, D].

        Args:
            scann: the module, see `scann_module`.
            descriptors: float32 or float16; may be a memory map.
            parameters: as `rules` returns them.
            stored: the rows that are reordered from disk; None: `descriptors`.
        """
        if stored is None:
            stored = descriptors
        if parameters.get("reorder_from") == "disk":
            order = _order(descriptors, parameters)
            sample = parameters["training_sample_size"]
            searcher = _tree(
                scann, descriptors[order[:sample]], parameters
            ).build()
            _add(searcher, descriptors, order[sample:])
            return cls(searcher, parameters, stored=stored)
        if parameters["searcher"] == "tree":
            searcher = _tree(scann, descriptors, parameters).reorder(
                parameters["reordering_num_neighbors"]
            )
            return cls(searcher.build(), parameters)
        return cls(
            _builder(scann, descriptors).score_brute_force().build(), parameters
        )

    @classmethod
    def load(
        cls,
        scann: Any,
        folder: Path,
        parameters: dict[str, Any],
        settings: Sequence[Setting] | None = None,
        *,
        stored: np.ndarray | None = None,
    ) -> "Searcher":
        """Loads what `write` wrote; the folder may have been moved.

        Args:
            scann: the module, see `scann_module`.
            folder: the folder.
            parameters: of the searcher that was written.
            settings: of `scann_recall.settings_by_k`, if they were measured.
            stored: [N, D], the rows, which are read to reorder from disk.

        Raises:
            ValueError: a file is damaged.
        """
        try:
            searcher = scann.scann_ops_pybind.load_searcher(str(folder))
        except Exception as error:  # Damaged files raise errors of any kind.
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{folder.name}/ cannot be loaded: {reason}"
            ) from error
        return cls(searcher, parameters, settings, stored=stored)

    def write(self, folder: Path) -> None:
        """Writes the searcher to a new folder."""
        folder.mkdir()
        self._searcher.serialize(str(folder), relative_path=True)

    def set_num_threads(self, count: int) -> None:
        """Sets how many threads search; the default is one per core."""
        self._parallel = count > 1
        if self._parallel:
            # ScaNN counts the threads beside the one that calls it.
            self._searcher.set_num_threads(count - 1)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        setting: Setting | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest rows of float32 queries [Q, D].

        Args:
            queries: of unit length.
            k: neighbours to find.
            setting: of a tree; None: that of `setting_for`.

        Returns:
            int64 [Q, k] rows, nearest first, and float32 [Q, k] squared
            distances; -1 and infinity after the last row if the leaves that
            are searched hold fewer than k.
        """
        options, found = {}, k
        if self.parameters["searcher"] == "tree":
            setting = setting or self.setting_for(k) or self._unmeasured(k)
            options["leaves_to_search"] = setting["leaves"]
            reordered = max(setting["reordered"], k)
            if self._order is None:
                options["pre_reorder_num_neighbors"] = reordered
            else:
                found = min(reordered, len(self._order))
        search = self._searcher.search_batched
        if self._parallel:
            search = self._searcher.search_batched_parallel
        rows, products = search(queries, final_num_neighbors=found, **options)
        # ScaNN pads with row 0 and NaN.
        padded = np.isnan(products)
        if self._order is not None:
            rows = self._order[rows]
            products = self._products(queries, rows)
        rows = np.where(padded, -1, rows.astype(np.int64))
        distances = np.maximum(np.float32(2) - 2 * products, 0)
        distances = np.where(padded, np.float32(np.inf), distances)
        if self._order is None:
            return rows, distances
        nearest = np.lexsort((rows, distances))[:, :k]
        return (
            np.take_along_axis(rows, nearest, axis=1),
            np.take_along_axis(distances, nearest, axis=1),
        )

    def _products(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns products [Q, n] of queries [Q, D] and stored rows [Q, n]."""
        products = np.empty(rows.shape, np.float32)
        step = max(1, _HELD_NUMBERS // (rows.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            held = np.asarray(self._stored[rows[some]], np.float32)
            products[some] = (held @ queries[some, :, None])[..., 0]
        return products

    def setting_for(self, k: int) -> Setting | None:
        """Returns the setting for k neighbours; None: search exactly."""
        if self.parameters["searcher"] != "tree":
            return {"k": k, "recall": 1.0}
        if self._settings is None:
            return self._unmeasured(k)
        return next((one for one in self._settings if k <= one["k"]), None)

    def _unmeasured(self, k: int) -> Setting:
        """Returns a setting by rules; what it finds was not measured."""
        leaves = self.parameters["num_leaves_to_search"]
        reordered = self.parameters["reordering_num_neighbors"]
        if k > _NEIGHBOURS:
            leaves = math.ceil(leaves * (k / _NEIGHBOURS) ** _MORE_LEAVES)
            reordered = max(reordered, _MORE_REORDERED * k)
        leaves = min(leaves, self.parameters["num_leaves"])
        return {
            **{"k": k, "leaves": leaves, "reordered": reordered},
            "recall": None,
        }


def _builder(scann: Any, descriptors: np.ndarray) -> Any:
    # Unit vectors: the largest product is the smallest distance, and SOAR and
    # residual quantisation exist for products only.
    return scann.scann_ops_pybind.builder(
        np.asarray(descriptors, np.float32), 10, "dot_product"
    )


def _tree(
    scann: Any, descriptors: np.ndarray, parameters: dict[str, Any]
) -> Any:
    """Returns the builder of a tree that does not reorder."""
    return (
        _builder(scann, descriptors)
        .tree(
            num_leaves=parameters["num_leaves"],
            num_leaves_to_search=parameters["num_leaves_to_search"],
            training_sample_size=parameters["training_sample_size"],
            spherical=True,
            # 1.2 times as fast for batches (benchmarks/RESULTS.md).
            quantize_centroids=False,
            random_init=False,
            soar_lambda=parameters["soar_lambda"],
        )
        .score_ah(
            parameters["dimensions_per_block"],
            anisotropic_quantization_threshold=parameters[
                "anisotropic_quantization_threshold"
            ],
            training_sample_size=parameters["training_sample_size"],
        )
    )


def _order(descriptors: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """Returns the rows in the order in which they go into a tree, int64 [N].

    First come those that train it, which are spread over all.
    """
    count, sample = len(descriptors), parameters["training_sample_size"]
    first = np.arange(sample) * count // sample
    is_other = np.ones(count, bool)
    is_other[first] = False
    return np.concatenate([first, np.flatnonzero(is_other)])


def _add(searcher: Any, descriptors: np.ndarray, rows: np.ndarray) -> None:
    """Adds rows to a tree, which keeps no copy of them."""
    step = max(1, _HELD_NUMBERS // descriptors.shape[1])
    for start in range(0, len(rows), step):
        block = np.asarray(descriptors[rows[start : start + step]], np.float32)
        # Without names, rows are counted on.
        searcher.searcher.upsert([None] * len(block), block, _ADDED_TOGETHER)
