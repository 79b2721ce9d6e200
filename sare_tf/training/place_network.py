"""The network trained on place batches, with one loss over the whole batch.

Axis letters: B images of the whole batch, b of one replica, M of the memory,
H W image, D descriptor length.

In a training step, every replica

1. embeds its own images, [b, H, W, 3] -> [b, D],
2. gathers descriptors and labels of all replicas, [B, D] and [B],
3. computes the loss, the mean over all anchors of the whole batch, and its
   gradient with respect to the descriptors, [B, D],
4. back-propagates its own rows of that gradient through the network. The
   optimizer sums the gradients of all replicas; those of weights of the loss
   itself, which all replicas compute, are divided by their number before.

The sum is the gradient of the whole batch, so any number of replicas trains the
same network. Steps 1 and 4 only need the replica's own images, so they can
process a few images at a time: first without gradient, then again with it.
"""

import keras
import tensorflow as tf

from sare_tf.distributed import strategies
from sare_tf.losses import place_labels
from sare_tf.losses.keras_losses import DescriptorLoss
from sare_tf.model import drop_path
from sare_tf.model.data_checks import ChecksData
from sare_tf.model.loss_weights import TrainsLossWeights
from sare_tf.training import chunks, step_checks

# What a configuration holds as layers.
_PARTS = ("embedder", "augmentation")


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceNetwork(TrainsLossWeights, ChecksData, keras.Model):
    """Trains an embedder on batches of places, with a loss over all of them.

    Call `fit` on one or several replicas, with any of the losses over places.
    The images of all replicas repel each image of the batch.

    `chunk_images` trains on batches larger than memory: activations are held
    only for this many images at a time, and every image is embedded twice. The
    gradient is the same, provided that the descriptor of an image depends
    neither on its batch nor on random numbers; other layers are refused.

    With `memory_images`, the loss also sees descriptors of earlier batches,
    without a gradient. A remembered image within `separation_m` of an image
    with another label is ignored for it, because they may show the same place.
    Only SARE losses take a memory.

    With `parts`, a batch consists of several: the loss is computed for each of
    them by itself, and the losses are added. So images of one part neither
    attract nor repel those of another. Metrics are the losses of the parts.

    A loss with weights of its own, such as `PlaceCosFaceLoss` or one with an
    `InverseBandwidth`, is trained with the network and saved with it. These
    weights are not decayed.

    Layers must not regularise their weights: let the optimizer decay them.

    Source: for chunks, Gao et al., "Scaling Deep Contrastive Learning Batch
    Size under Memory Limited Setup", RepL4NLP 2021, section 3; for the memory,
    Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
    section 3.

    Args:
        embedder: a model named "embedder", [B, H, W, 3] -> [B, D]. It is
            shared, not copied.
        augmentation: an `Augmentation` applied in training, or None.
        chunk_images: images of one replica to embed at a time, a divisor of
            their number; 0 for all at once.
        memory_images: M, the number of remembered descriptors; 0 for none.
        memory_after_steps: the step from which the loss uses the memory. It is
            filled from the start, but descriptors change fast at first.
        separation_m: distance in metres up to which a remembered image with
            another label is ignored.
        parts: name and number of images of each part of a batch, in their
            order, such as (("city", 32), ("town", 16)); () for one part.
        **kwargs: passed on to `keras.Model`.

    Call arguments:
        images: RGB, 0..255, of any number type; with an augmentation
            {"images", "draws"}; with "path_draws", too, if numbers of
            stochastic depth come with the batch, see `drop_path`.

    Input shape:
        [B, H, W, 3]; draws [B, R]. Targets in training are place labels, [B],
        integers, compared exactly; with a memory {"labels": [B], from 0 and
        below 2 ** 24, "positions": float32 [B, 2]}, in metres, NaN if unknown;
        with weights of positives {"labels": [B], "positive_weights": float32
        [B, K]}, of each image with the K images of its place, which stand
        together in the batch, in order.

    Output shape:
        [B, D].

    Example:

    ```python
    network = sare_tf.PlaceNetwork(embedder, chunk_images=32)
    network.compile(optimizer="sgd", loss=sare_tf.PlaceSARELoss())
    network.fit(sare_tf.place_dataset(records, rows, height=480, width=640))
    ```
    """

    def __init__(
        self,
        embedder,
        *,
        augmentation=None,
        chunk_images=0,
        memory_images=0,
        memory_after_steps=0,
        separation_m=25.0,
        parts=(),
        **kwargs,
    ):
        # float32: a mixed policy must not round the images.
        super().__init__(**{"dtype": "float32", **kwargs})
        if embedder.name != "embedder":
            raise ValueError(
                "Expected a model named 'embedder', by which checkpoints find "
                f"it. Received: embedder.name={embedder.name!r}."
            )
        self.embedder = embedder
        self.augmentation = augmentation
        self.chunk_images = chunk_images
        self.memory_images = memory_images
        self.memory_after_steps = memory_after_steps
        self.separation_m = separation_m
        self.parts = tuple((name, images) for name, images in parts)
        self.part_losses = [
            keras.metrics.Mean(name=f"loss_{name}") for name, _ in self.parts
        ]
        if memory_images:
            self._memory = {
                "labels": self._remembered("labels", (), empty=-1.0),
                "positions": self._remembered("positions", (2,)),
                "descriptors": self._remembered(
                    "descriptors", (embedder.output_shape[-1],)
                ),
            }
        self.built = True

    @property
    def chunk_images(self):
        """Images to embed at a time; may be changed after loading."""
        return self._chunk_images

    @chunk_images.setter
    def chunk_images(self, count):
        if count:
            chunks.check_repeatable(self.embedder)
        self._chunk_images = count

    def share_memory(self, network):
        """Takes the memory of another network as its own."""
        self.memory_images = network.memory_images
        if self.memory_images:
            self._memory = network._memory

    def _remembered(self, name, shape, *, empty=0.0):
        return self.add_weight(
            name=f"memory_{name}",
            shape=(self.memory_images, *shape),
            initializer=keras.initializers.Constant(empty),
            trainable=False,
            # The memory is the same on all replicas.
            aggregation="only_first_replica",
        )

    def build(self, input_shape):
        del input_shape

    def call(self, images, training=None):
        path_draws = drop_path.draws_of(images)
        images = self._varied(images, training=training)
        with drop_path.given(path_draws):
            return self.embedder(images, training=training)

    def _varied(self, images, *, training):
        if self.augmentation is None:
            return images["images"] if isinstance(images, dict) else images
        return self.augmentation(
            images["images"], images["draws"], training=training
        )

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        # The loss over one replica's images, as Keras needs it for `evaluate`.
        batch = self._batch(y, y_pred)
        numbers = self._numbers(batch["labels"])
        descriptors = batch["descriptors"]
        return super().compute_loss(x, numbers, descriptors, *args, **kwargs)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        labels = y["labels"] if isinstance(y, dict) else y
        return super().compute_metrics(x, labels, y_pred, sample_weight)

    def train_step(self, data):
        images, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(
            data
        )
        path_draws = drop_path.draws_of(images)
        images = self._varied(images, training=True)
        weights = self.embedder.trainable_variables
        of_loss = []
        if self.loss_layer is not None:
            of_loss = self.loss_layer.trainable_variables
        if self.chunk_images:
            own = chunks.embed(self.embedder, images, size=self.chunk_images)
        else:
            with tf.GradientTape() as tape, drop_path.given(path_draws):
                own = self.embedder(images, training=True)
        step_checks.check(self, sample_weight)
        batch = strategies.gather_rows(self._batch(targets, own))
        with tf.GradientTape() as loss_tape:
            loss_tape.watch(batch["descriptors"])
            loss = self._loss_of_parts(batch)
        by_descriptor, *by_loss_weight = loss_tape.gradient(
            loss, [batch["descriptors"], *of_loss]
        )
        replica = tf.distribute.get_replica_context()
        # Each replica has the gradient of the whole batch: the sum is that.
        by_loss_weight = [
            tf.convert_to_tensor(gradient) / replica.num_replicas_in_sync
            for gradient in by_loss_weight
        ]
        first = replica.replica_id_in_sync_group * tf.shape(own)[0]
        own_part = by_descriptor[first : first + tf.shape(own)[0]]
        own_part = tf.ensure_shape(own_part, own.shape)
        if self.chunk_images:
            gradients = chunks.gradients(
                self.embedder, images, own_part, size=self.chunk_images
            )
        else:
            gradients = tape.gradient(own, weights, own_part)
        gradients = [*gradients, *by_loss_weight]
        weights = [*weights, *of_loss]
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        if self.memory_images:
            for name, remembered in self._memory.items():
                latest = tf.concat([remembered, batch[name]], 0)
                remembered.assign(latest[-self.memory_images :])
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(images, targets, own)

    def _loss_of_parts(self, batch):
        """Returns the loss of the whole batch, the sum over its parts."""
        if not self.parts:
            return tf.reduce_mean(self._anchor_losses(batch))
        sizes = [images for _, images in self.parts]
        divided = {
            name: tf.split(rows, sizes, axis=0) for name, rows in batch.items()
        }
        losses = []
        for number, tracker in enumerate(self.part_losses):
            part = {name: rows[number] for name, rows in divided.items()}
            losses.append(tf.reduce_mean(self._anchor_losses(part)))
            tracker.update_state(losses[-1])
        return tf.add_n(losses)

    def _anchor_losses(self, batch):
        """Returns the loss of every image of the whole batch, [B]."""
        labels, descriptors = batch["labels"], batch["descriptors"]
        if "positive_weights" in batch:
            return self._weighted_losses(batch)
        if not self.memory_images:
            numbers = self._numbers(labels)
            if not isinstance(self.loss, DescriptorLoss):
                # float32, as Keras gives labels to losses.
                numbers = tf.cast(numbers, "float32")
            return self.loss.call(numbers, descriptors)
        memory = {
            name: tf.convert_to_tensor(remembered)
            for name, remembered in self._memory.items()
        }
        apart = tf.reduce_sum(
            tf.math.squared_difference(
                batch["positions"][:, None], memory["positions"][None]
            ),
            axis=-1,
        )  # [B, M]
        # Not `~(apart <= ...)`: TensorFlow's optimizer rewrites it as `>`,
        # which differs for NaN.
        far = (apart > self.separation_m**2) | tf.math.is_nan(apart)
        same = labels[:, None] == memory["labels"]
        filled = memory["labels"] >= 0.0
        started = self.optimizer.iterations >= self.memory_after_steps
        return self.loss.call_with_memory(
            labels,
            descriptors,
            memory=(memory["labels"], memory["descriptors"]),
            counts=(same | far) & filled & started,
        )

    def _weighted_losses(self, batch):
        """Returns the loss of every image, [B], with weights of positives."""
        if not hasattr(self.loss, "call_with_weights") or self.memory_images:
            raise ValueError(
                "Expected a loss whose positives have weights, and no memory. "
                f"Received: loss={self.loss}, "
                f"memory_images={self.memory_images}."
            )
        # [B, K] for the K images of a place, which stand together; others
        # are no positives, whatever their weights.
        weights = batch["positive_weights"]
        count, of_a_place = tf.unstack(tf.shape(weights))
        return self.loss.call_with_weights(
            place_labels.numbers(batch["labels"]),
            batch["descriptors"],
            positive_weights=tf.tile(weights, (1, count // of_a_place)),
        )

    def _numbers(self, labels):
        """Returns labels for the loss: those of its classes, or of a batch."""
        if getattr(self.loss, "has_classes", False):
            return labels
        return place_labels.numbers(labels)

    def _batch(self, targets, descriptors):
        """Returns labels, descriptors and, if given, positions of a step."""
        batch = targets if isinstance(targets, dict) else {"labels": targets}
        # The memory holds labels as float32.
        check = place_labels.checked
        if self.memory_images:
            check = place_labels.checked_float32
        labels = tf.convert_to_tensor(batch["labels"])
        labels, descriptors = check(labels, descriptors)
        if labels.dtype.is_integer:
            # Replicas on GPUs gather int64, but not every type of integers.
            labels = tf.cast(labels, "int64")
        batch = {**batch, "labels": labels, "descriptors": descriptors}
        for name in {"positions", "positive_weights"} & set(batch):
            batch[name] = tf.cast(batch[name], "float32")
        return batch

    def get_config(self):
        return {
            **super().get_config(),
            **{
                part: keras.saving.serialize_keras_object(getattr(self, part))
                for part in _PARTS
            },
            "chunk_images": self.chunk_images,
            "memory_images": self.memory_images,
            "memory_after_steps": self.memory_after_steps,
            "separation_m": self.separation_m,
            "parts": self.parts,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            part: keras.saving.deserialize_keras_object(
                config[part], custom_objects=custom_objects
            )
            for part in _PARTS
        }
        return cls(**{**config, **parts})


def losses_of_parts(network):
    """Returns the mean losses of the parts in the last epoch of `fit`.

    Args:
        network: any network after `fit`.

    Returns:
        Name of a part -> loss; none if a batch has one part.
    """
    history = network.history.history
    return {
        name: float(history[f"loss_{name}"][-1])
        for name, _ in getattr(network, "parts", ())
    }
