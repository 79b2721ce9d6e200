"""Random images with everything that a protocol may ask for."""

import numpy as np
import pandas as pd

from sare_tf.dataset import manifest

RELATIONS = ("positive", "easy", "hard", "junk")


def table(count: int, **columns) -> pd.DataFrame:
    """A manifest of `count` rows with these columns."""
    unknown = {
        name: np.full(count, default)
        if dtype != "str"
        else np.full(count, default or "", object)
        for name, (dtype, default, *_) in manifest.COLUMNS.items()
    }
    return pd.DataFrame({**unknown, **columns})


class World:
    """Random images with everything that a protocol may ask for."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.queries = self._images(24, "query")
        self.database = self._images(90, "database")
        # Half of the queries are each tenth frame, so that some are asked.
        self.queries.loc[:11, "frame"] = 5 + 10 * self.rng.integers(0, 6, 12)
        # Panoramas of three images each, in no order.
        panoramas = self.rng.permutation(np.arange(90) // 3)
        self.database["panorama_id"] = [f"p{n}" for n in panoramas]
        kinds = self.rng.integers(0, 12, (24, 90))
        self.relations = pd.DataFrame(
            [
                (f"query{q}", f"database{d}", RELATIONS[kinds[q, d]])
                for q, d in zip(*np.nonzero(kinds < 4), strict=True)
                if q  # The first query has no relation.
            ]
            # Of another split.
            + [("elsewhere", "database3", "positive")],
            columns=["query", "database", "relation"],
        )
        self.kind = {
            (q, d): RELATIONS[kinds[q, d]]
            for q, d in zip(*np.nonzero(kinds < 4), strict=True)
            if q
        }
        self.query_vectors = self._unit(24)
        self.database_vectors = self._unit(90)

    def _images(self, count: int, role: str) -> pd.DataFrame:
        rng = self.rng
        subtasks = np.array(["all", "all d2n", "all s2w d2n", "s2w"], object)
        return table(
            count,
            image_id=np.array([f"{role}{n}" for n in range(count)], object),
            role=np.full(count, role, object),
            # Whole metres, so that 25 m exactly occurs: 7, 24 and 15, 20.
            utm_east_m=rng.integers(0, 100, count) + 500_000.0,
            utm_north_m=rng.integers(0, 100, count) + 4_500_000.0,
            place_id=rng.integers(0, 12, count).astype(str).astype(object),
            heading_deg=rng.integers(0, 360, count).astype(float),
            timestamp=rng.choice(["201012", "201203", "201305"], count).astype(
                object
            ),
            sequence_id=rng.choice(["a", "b"], count).astype(object),
            frame=rng.integers(5, 60, count),
            subtasks=rng.choice(subtasks, count),
        )

    def _unit(self, count: int) -> np.ndarray:
        vectors = self.rng.normal(size=(count, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def metres(self, q: int, d: int) -> float:
        query, image = self.queries.iloc[q], self.database.iloc[d]
        return (
            (query.utm_east_m - image.utm_east_m) ** 2
            + (query.utm_north_m - image.utm_north_m) ** 2
        ) ** 0.5

    def ranking(self, q: int) -> list[int]:
        """All database images, nearest first."""
        far = [
            sum(
                (float(a) - float(b)) ** 2
                for a, b in zip(self.query_vectors[q], vector, strict=True)
            )
            for vector in self.database_vectors
        ]
        return sorted(range(len(far)), key=lambda d: (np.float32(far[d]), d))
