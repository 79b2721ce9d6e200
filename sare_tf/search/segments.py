"""A segment of an index: images that are searched by themselves.

    descriptors.npy   float32 or float16 [N, D], rows of unit length; or
    codes.npy         their codes [N, C], with codec.npz, see `search.codes`
    manifest.parquet  row i describes row i of the descriptors
    scann/            ScaNN's searcher, movable; absent where ScaNN is

An index begins as one segment. Each addition of images makes one more.
"""

import math
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset import manifest
from sare_tf.runtime import file_digests, sealed_json
from sare_tf.search import (
    descriptor_arrays,
    exact_search,
    scann_recall,
    scann_searcher,
    scann_settings,
    scann_tuning,
)
from sare_tf.search.options import CODES, TuningOptions

FILES = {
    descriptor_arrays.FLOATS,
    descriptor_arrays.CODED,
    descriptor_arrays.CODEC,
    "manifest.parquet",
    "scann",
}
# Types of values that describe a segment.
_TYPES = {
    **{"folder": str, "count": int, "bytes": dict},
    "scann": (dict, types.NoneType),
}
# Approximate search is asked for this many times as many neighbours, again and
# again, until enough of them are allowed. Ours.
_ASK_MORE = 4
# Rows whose neighbours by codes are compared with those by numbers. Ours.
_CODE_QUERIES = 200
# Rows that agree with a prior are searched exactly if they are fewer than this,
# of which `scann_searcher` builds no tree, and than this share. Ours.
_EXACT_BELOW, _EXACT_SHARE = 20_000, 0.5


def finish(
    folder: Path, rows: pd.DataFrame, tuning: TuningOptions, *, dtype: str
) -> dict[str, Any]:
    """Adds manifest and searcher to a folder that holds descriptors.

    These are descriptors.npy, which becomes codes if `dtype` is a name of
    those, or codes.npy and codec.npz. Afterwards the caller removes
    descriptors.npy by `descriptor_arrays.remove_coded`.

    Args:
        folder: the folder.
        rows: manifest of the N descriptors.
        tuning: how the settings of ScaNN are chosen.
        dtype: of the segment, as in index.json.

    Returns:
        What `Segment` needs to open it, as JSON holds it.
    """
    code_recall = None
    if dtype in CODES and (folder / descriptor_arrays.FLOATS).exists():
        descriptor_arrays.write_codes(folder, dtype)
        code_recall = _code_recall(folder, dtype)
    stored = descriptor_arrays.read(folder)
    manifest.write(rows.reset_index(drop=True), folder / "manifest.parquet")
    parameters, tuned, settings = None, None, None
    if scann := scann_searcher.scann_module():
        rules = scann_searcher.rules(
            count=len(stored),
            dimension=stored.shape[1],
            reorder_from="disk" if dtype in CODES else tuning.reorder_from,
        )
        parameters, tuned = rules, None
        if rules["searcher"] != "exact":
            logging.info("Building the ScaNN searcher.")
            parameters, tuned = _build_searcher(
                scann, folder, rules, tuning, stored
            )
        if parameters["searcher"] == "tree":
            settings = scann_recall.settings_by_k(
                scann_searcher.Searcher.load(
                    scann, folder / "scann", parameters, stored=stored
                ),
                stored,
                target_recall=tuning.target_recall,
            )
    names = _names(folder)
    return {
        "count": len(rows),
        "scann": parameters,
        "tuned": tuned,
        "settings": settings,
        "code_recall": code_recall,
        "bytes": {name: (folder / name).stat().st_size for name in names},
        "digests": file_digests.of(folder, names),
    }


def _code_recall(folder: Path, dtype: str) -> float | None:
    """Measures which neighbours codes keep, by rows held out."""
    embedded = descriptor_arrays.read_floats(folder)
    if len(embedded) <= scann_settings.NEIGHBOURS:
        return None
    kept = scann_settings.HeldOutRows(embedded, most=_CODE_QUERIES).recall_of(
        descriptor_arrays.read(folder)
    )
    logging.info(
        "Codes (%s) keep %.4f of the 10 nearest images of %s.",
        dtype,
        kept,
        descriptor_arrays.FLOATS,
    )
    return kept


def _build_searcher(
    scann: Any,
    folder: Path,
    rules: dict[str, Any],
    tuning: TuningOptions,
    stored: np.ndarray,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Writes a searcher; returns its parameters and the report of `tune`."""
    best = None
    # Codes of a tree are better if they are made of what was embedded.
    embedded = stored
    if (folder / descriptor_arrays.FLOATS).exists():
        embedded = descriptor_arrays.read_floats(folder)

    def build(parameters: dict[str, Any]) -> scann_searcher.Searcher:
        return scann_searcher.Searcher.build(
            scann, embedded, parameters, stored=stored
        )

    def keep(searcher: scann_searcher.Searcher) -> None:
        nonlocal best
        best = searcher.parameters
        shutil.rmtree(folder / "scann", ignore_errors=True)
        searcher.write(folder / "scann")

    if not tuning.target_recall or rules["searcher"] != "tree":
        keep(build(rules))
        return best, None
    tuned = scann_tuning.tune(
        build,
        rules,
        stored,
        target_recall=tuning.target_recall,
        tune_tree=tuning.tune_tree,
        keep=keep,
    )
    return best, tuned


def check_files(
    folder: Path,
    description: dict[str, Any],
    *,
    scann: bool = True,
    digests: bool = True,
) -> None:
    """Refuses a segment whose files are not as they were written.

    Args:
        folder: the folder.
        description: what `finish` returned.
        scann: check ScaNN's files, too.
        digests: read all files, and compare them with their digests.

    Raises:
        OSError, ValueError: names the file.
    """
    sealed_json.check_types(description, _TYPES)

    def used(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in values.items()
            if scann or not name.startswith("scann/")
        }

    for name, expected in used(description["bytes"]).items():
        size = (folder / name).stat().st_size
        if size != expected:
            raise ValueError(f"{name} has {size} bytes, not {expected}")
    if digests:
        file_digests.check(folder, used(description.get("digests", {})))


def _names(folder: Path) -> list[str]:
    """Returns the files of a segment, by path in the folder."""
    names = [descriptor_arrays.FLOATS]
    if (folder / descriptor_arrays.CODED).exists():
        names = [descriptor_arrays.CODED, descriptor_arrays.CODEC]
    paths = [folder / name for name in (*names, "manifest.parquet")]
    if (folder / "scann").is_dir():
        paths += sorted((folder / "scann").iterdir())
    return [path.relative_to(folder).as_posix() for path in paths]


class Segment:
    """An opened segment.

    Attributes:
        descriptors: [N, D], a read-only memory map; codes are decoded when
            they are indexed.
        manifest: DataFrame; row i describes row i of the descriptors.
        searcher: a `scann_searcher.Searcher`, or None: search is exact.
        live: int64, the rows that were not removed.

    Args:
        folder: the folder.
        description: what `finish` returned.
        removed: int64, rows that were removed.
        exact: search exactly, without ScaNN.
        check: compare its files with their digests.

    Raises:
        OSError, ValueError: it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        *,
        removed: np.ndarray,
        exact: bool,
        check: bool,
    ):
        check_files(folder, description, scann=not exact, digests=check)
        self.descriptors = descriptor_arrays.read(folder)
        self.manifest = manifest.read(folder / "manifest.parquet")
        counts = {len(self.descriptors), len(self.manifest)}
        if counts != {description["count"]}:
            raise ValueError(
                f"descriptors and manifest have {sorted(counts)} rows, not "
                f"{description['count']}"
            )
        self._allowed = np.ones(len(self.descriptors), bool)
        self._allowed[removed] = False
        self.live = np.flatnonzero(self._allowed)
        self.searcher = None
        if exact:
            return
        if not description["scann"]:
            logging.warning("The index was built without ScaNN: exact search.")
        elif description["scann"]["searcher"] == "exact":
            return
        elif scann := scann_searcher.scann_module():
            self.searcher = scann_searcher.Searcher.load(
                scann,
                folder / "scann",
                description["scann"],
                description.get("settings"),
                stored=self.descriptors,
            )

    @property
    def is_approximate(self) -> bool:
        """Whether it searches by ScaNN."""
        return self.searcher is not None

    def recall_at(
        self, k: int, *, where: np.ndarray | None = None
    ) -> float | None:
        """Returns the measured recall of search; None if it is not known.

        It is the share of the k exact neighbours that are found for rows of the
        segment. With `where`, it is the lowest of the settings that a search
        may take.

        Args:
            k: neighbours per query.
            where: as of `search`.
        """
        asked = self._asked_first(k, where)
        setting = asked and self.searcher.setting_for(asked)
        if where is None or not setting:
            return setting["recall"] if setting else 1.0
        recalls = []
        while setting and asked <= len(self.descriptors):
            recalls.append(setting["recall"])
            asked *= _ASK_MORE
            setting = self.searcher.setting_for(asked)
        return None if None in recalls else min(recalls, default=1.0)

    def _asked_first(self, k: int, where: np.ndarray | None) -> int | None:
        """Returns how many rows ScaNN is first asked for; None: search exactly.

        Among so many rows, k agree with `where` on average.
        """
        if not self.searcher:
            return None
        if where is None:
            return k
        count = int(where.sum())
        if count < min(_EXACT_BELOW, _EXACT_SHARE * len(where)):
            return None
        return math.ceil(k * len(where) / count)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        where: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k nearest rows that were not removed.

        Queries for which approximate search finds fewer than k are searched
        exactly. ScaNN is asked for more neighbours, by a setting that was
        measured for so many: all that a query misses are misses of that search.

        Args:
            queries: float32 [Q, D], of unit length.
            k: at most the number of live rows, or of those in `where`.
            where: bool, for each live row whether it may be found; None: all.

        Returns:
            int64 [Q, k] positions in `live`, nearest first, and float32 [Q, k]
            squared distances.
        """
        allowed = self._allowed
        if where is not None:
            allowed = np.zeros_like(allowed)
            allowed[self.live[where]] = True
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        remaining = np.arange(len(queries))  # queries without an answer yet
        asked = self._asked_first(k, where)
        while (
            asked is not None
            and self.searcher.setting_for(asked)
            and len(remaining)
            and asked <= len(self.descriptors)
        ):
            near, far = self.searcher.search(queries[remaining], asked)
            padded = near < 0
            kept = ~padded & allowed[near]
            full = kept.sum(axis=1) >= k
            # Kept neighbours first, in their order.
            order = np.argsort(~kept[full], axis=1, kind="stable")[:, :k]
            done = remaining[full]
            rows[done] = np.take_along_axis(near[full], order, axis=1)
            distances[done] = np.take_along_axis(far[full], order, axis=1)
            remaining = remaining[~full]
            if padded.any():
                break
            asked *= _ASK_MORE
        if len(remaining):
            rows[remaining], distances[remaining] = exact_search.nearest(
                queries[remaining], self.descriptors, k, allowed=allowed
            )
        if len(self.live) < len(self.descriptors):
            rows = np.searchsorted(self.live, rows)
        return rows, distances
