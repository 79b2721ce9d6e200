"""The local features of database images: stored, or computed when needed."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from sare_tf.local_features.features import Extractor, LocalFeatures
from sare_tf.local_features.stored_features import StoredFeatures

# Images whose features are kept in memory: half a GB of RootSIFT. Ours.
_MOST_KEPT = 1000


class FeatureSource:
    """Gives the local features of database images by row.

    Args:
        extractor: computes what is not stored.
        stored: the features beside the index; None: there are none.
        read: returns the encoded images of rows, None for one that is absent.

    Call arguments:
        rows: rows of the database.

    Output:
        Their features. An image that is absent or damaged has no valid ones.

    Attributes:
        absent: rows whose images were needed and absent.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        stored: StoredFeatures | None,
        read: Callable[[Sequence[int]], Sequence[bytes | None]],
    ):
        self.extractor = extractor
        self.absent: set[int] = set()
        self._stored = stored
        self._read = read
        self._kept: OrderedDict[int, LocalFeatures] = OrderedDict()

    def __call__(self, rows: Sequence[int]) -> list[LocalFeatures]:
        if self._stored is not None:
            return [self._stored[row] for row in rows]
        missing = [row for row in dict.fromkeys(rows) if row not in self._kept]
        images = self._read(missing) if missing else []
        there = [image for image in images if image is not None]
        computed = iter(self.extractor(there))
        for row, image in zip(missing, images, strict=True):
            if image is None:
                self.absent.add(row)
                self._kept[row] = LocalFeatures.of_no_image(
                    count=self.extractor.count,
                    dimension=self.extractor.dimension,
                )
            else:
                self._kept[row] = next(computed)
        for row in rows:
            self._kept.move_to_end(row)
        features = [self._kept[row] for row in rows]
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return features
