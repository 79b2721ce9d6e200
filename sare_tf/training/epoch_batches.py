"""The batches that training fits on once."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from sare_tf.training.divergence import Diverged


@dataclasses.dataclass(frozen=True)
class Batches:
    """A dataset to fit on once, and what messages say about it.

    Attributes:
        dataset: batches for `fit`.
        names: image_ids, `names_per_batch` for each batch.
        names_per_batch: how many of the names belong to a batch.
        kind: what the names are names of, such as "queries".
        images_per_batch: images of a batch, of all workers.
        title: title of the progress.
        steps_of_epoch: steps of the whole epoch.
        first_step: number of the first step in the epoch, from 0.
    """

    dataset: tf.data.Dataset
    names: Sequence[str]
    names_per_batch: int
    kind: str
    images_per_batch: int
    title: str
    steps_of_epoch: int
    first_step: int = 0

    @property
    def steps(self) -> int:
        return int(self.dataset.cardinality())

    def not_finite(self, batch: int, loss: float, *, epoch: int) -> Diverged:
        """Makes the error of a batch whose loss is not finite."""
        count = self.names_per_batch
        return Diverged(
            f"Expected a finite loss. Received: loss={loss} at step "
            f"{self.first_step + batch + 1} of epoch {epoch}, "
            f"{self.kind} {list(self.names[batch * count :][:count])}. "
            f"The last checkpoint, epoch-{epoch - 1:04d}, is untouched; "
            "lower --learning_rate, and run the command again."
        )
