"""The network over batches of places: one loss over the whole batch.

Axis letters: B images of the whole batch, b of one replica, M of the memory,
H W image, D descriptor length.

A training step goes through the descriptors, on every replica alike:

1. It embeds its images, [b, H, W, 3] -> [b, D].
2. Descriptors and labels of all replicas are gathered, [B, D] and [B].
3. The loss is the mean over all anchors of the whole batch, and its gradient is
   taken by the descriptors, [B, D].
4. The replica's own rows of that gradient go back through the network, and the
   optimizer sums what the replicas found.

The sum of the parts is the gradient of the whole batch, so that any number of
replicas trains as one does. And as steps 1 and 4 touch nothing but the
replica's own images, they can go over them a few at a time: first without
gradient, then once more with it.
"""

import keras
import tensorflow as tf

from sare_tf.losses import place_labels
from sare_tf.losses.keras_losses import PlaceLoss
from sare_tf.model.data_checks import ChecksData

# What a configuration holds as layers.
_PARTS = ("embedder", "augmentation")


@keras.saving.register_keras_serializable(package="sare_tf")
class PlaceNetwork(ChecksData, keras.Model):
    """Trains an embedder on batches of places, with a loss over all of them.

    To `fit` on one or several replicas, with any of the losses over places.
    Each image of the batch is repelled by those of all replicas.

    `chunk_images` trains on batches larger than memory: activations are held
    for so many images at a time only, and every image is embedded twice.
    The gradient is the same, as long as an image's descriptor depends neither
    on its batch nor on chance; layers of which it does are refused.

    With `memory_images`, descriptors of earlier batches take part as they were
    when they were made; nothing is learnt to them. One that is within
    `separation_m` of an image of another place does not count for it: they may
    show the same. For SARE alone.

    Weights must not be regularised by their layers: optimizers decay them.

    Source: for chunks, Gao et al., "Scaling Deep Contrastive Learning Batch
    Size under Memory Limited Setup", RepL4NLP 2021, section 3; for the memory,
    Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
    section 3.

    Args:
        embedder: a model named "embedder", [B, H, W, 3] -> [B, D]. It is
            shared, not copied.
        augmentation: varies the images in training; None: they stay as they
            are.
        chunk_images: images of one replica that are embedded at a time, a
            divisor of their number; 0 for all at once.
        memory_images: M, how many descriptors are remembered; 0 for none.
        memory_after_steps: steps after which the memory takes part. It is
            filled before, but descriptors change fast at first.
        separation_m: see above, inclusive.
        **kwargs: of `keras.Model`.

    Call arguments:
        images: RGB, 0..255, of any number type; with an augmentation
            {"images", "draws"}.

    Input shape:
        [B, H, W, 3]; draws [B, R]. To train also targets: labels of places,
        [B], integers, compared exactly; with a memory {"labels": [B], from 0
        and below 2 ** 24, "positions": float32 [B, 2]}, in metres, NaN where
        they are not known.

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
        """See above; a loaded network may be given another number."""
        return self._chunk_images

    @chunk_images.setter
    def chunk_images(self, count):
        if count:
            _check_repeatable(self.embedder)
        self._chunk_images = count

    def _remembered(self, name, shape, *, empty=0.0):
        return self.add_weight(
            name=f"memory_{name}",
            shape=(self.memory_images, *shape),
            initializer=keras.initializers.Constant(empty),
            trainable=False,
            # All replicas remember the same.
            aggregation="only_first_replica",
        )

    def build(self, input_shape):
        del input_shape

    def call(self, images, training=None):
        images = self._varied(images, training=training)
        return self.embedder(images, training=training)

    def _varied(self, images, *, training):
        if self.augmentation is None:
            return images
        return self.augmentation(
            images["images"], images["draws"], training=training
        )

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        # Of one replica's images alone, as Keras has it for `evaluate`.
        batch = self._batch(y, y_pred)
        numbers = place_labels.numbers(batch["labels"])
        descriptors = batch["descriptors"]
        return super().compute_loss(x, numbers, descriptors, *args, **kwargs)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        labels = y["labels"] if isinstance(y, dict) else y
        return super().compute_metrics(x, labels, y_pred, sample_weight)

    def train_step(self, data):
        images, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(
            data
        )
        images = self._varied(images, training=True)
        weights = self.trainable_variables
        if self.chunk_images:
            own = self._embed_in_chunks(images)
        else:
            with tf.GradientTape() as tape:
                own = self.embedder(images, training=True)
        self._check_losses(sample_weight)
        batch = _gather(self._batch(targets, own))
        with tf.GradientTape() as loss_tape:
            loss_tape.watch(batch["descriptors"])
            loss = tf.reduce_mean(self._anchor_losses(batch))
        by_descriptor = loss_tape.gradient(loss, batch["descriptors"])
        replica = tf.distribute.get_replica_context()
        first = replica.replica_id_in_sync_group * tf.shape(own)[0]
        own_part = by_descriptor[first : first + tf.shape(own)[0]]
        own_part = tf.ensure_shape(own_part, own.shape)
        if self.chunk_images:
            gradients = self._propagate_in_chunks(images, own_part)
        else:
            gradients = tape.gradient(own, weights, own_part)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        if self.memory_images:
            for name, remembered in self._memory.items():
                latest = tf.concat([remembered, batch[name]], 0)
                remembered.assign(latest[-self.memory_images :])
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(images, targets, own)

    def _anchor_losses(self, batch):
        """Loss of every image of the whole batch, [B]."""
        labels, descriptors = batch["labels"], batch["descriptors"]
        if not self.memory_images:
            numbers = place_labels.numbers(labels)
            if not isinstance(self.loss, PlaceLoss):
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
        # Not the contrary of <=: TensorFlow's optimizer takes it for >.
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

    def _batch(self, targets, descriptors):
        """Labels, descriptors and perhaps positions of the images of a step."""
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
        if "positions" in batch:
            batch["positions"] = tf.cast(batch["positions"], "float32")
        return batch

    def _check_losses(self, sample_weight):
        if sample_weight is not None:
            raise ValueError(
                "Expected images and labels alone. Received: weights of "
                f"samples, of shape {sample_weight.shape}."
            )
        if self.embedder.losses:
            raise ValueError(
                "Expected layers that add no loss of their own. Received: "
                f"{len(self.embedder.losses)} such losses in the embedder. Let "
                "the optimizer decay weights instead."
            )
        if self.memory_images and not hasattr(self.loss, "call_with_memory"):
            raise ValueError(
                "Expected PlaceSARELoss with a memory: other losses take none. "
                f"Received: loss={self.loss}, "
                f"memory_images={self.memory_images}."
            )
        if getattr(self.loss, "reduction", None) != "sum_over_batch_size":
            raise ValueError(
                "Expected a keras.losses.Loss whose reduction is the mean over "
                f"anchors. Received: loss={self.loss}."
            )

    def _in_chunks(self, tensor):
        """[b, ...] -> [b / chunk_images, chunk_images, ...]."""
        size, *rest = tensor.shape
        if size is not None and size % self.chunk_images:
            raise ValueError(
                "Expected chunk_images to divide the images of a replica. "
                f"Received: chunk_images={self.chunk_images}, {size} images."
            )
        # Height and width may be known at run time alone.
        shape = tf.concat([[-1, self.chunk_images], tf.shape(tensor)[1:]], 0)
        chunks = tf.reshape(tensor, shape)
        return tf.ensure_shape(chunks, (None, self.chunk_images, *rest))

    def _embed_in_chunks(self, images):
        """Descriptors [b, D] of images [b, H, W, 3], without gradient."""
        # A loop of the graph, one chunk after the other: unrolled, TensorFlow
        # would run several at a time.
        descriptors = tf.map_fn(
            lambda chunk: self.embedder(chunk, training=True),
            self._in_chunks(images),
            parallel_iterations=1,
            fn_output_signature=tf.float32,
        )
        return tf.reshape(descriptors, (-1, descriptors.shape[-1]))

    def _propagate_in_chunks(self, images, by_descriptor):
        """Gradients by the weights, of those by the descriptors, [b, D]."""
        weights = self.trainable_variables
        images = self._in_chunks(images)
        by_descriptor = self._in_chunks(by_descriptor)

        def propagate(number, *sums):
            with tf.GradientTape() as tape:
                descriptors = self.embedder(images[number], training=True)
            gradients = tape.gradient(
                descriptors,
                weights,
                by_descriptor[number],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            sums = [a + b for a, b in zip(sums, gradients, strict=True)]
            return (number + 1, *sums)

        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
        _, *sums = tf.while_loop(
            lambda number, *_: number < tf.shape(images)[0],
            propagate,
            (0, *zeros),
            parallel_iterations=1,
        )
        return sums

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


def _gather(batch):
    """Rows of all replicas, in their order."""
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return batch
    # Inputs of a step have no device, without which workers cannot gather.
    own = {name: tf.identity(rows) for name, rows in batch.items()}
    gathered = replica.all_gather(own, axis=0)
    return {
        name: tf.ensure_shape(rows, (None, *batch[name].shape[1:]))
        for name, rows in gathered.items()
    }


def _check_repeatable(layer):
    """Refuses what gives an image another descriptor in another batch."""
    for inner in getattr(layer, "layers", []):
        _check_repeatable(inner)
        normalises = isinstance(inner, keras.layers.BatchNormalization)
        random = getattr(inner, "rate", 0) or (
            not hasattr(inner, "rate") and hasattr(inner, "seed_generator")
        )
        if random or (normalises and inner.trainable):
            raise ValueError(
                "Expected an embedder whose descriptor of an image depends "
                "neither on its batch nor on chance, to embed in chunks. "
                f"Received: chunk_images with the layer {inner.name!r}, a "
                f"{type(inner).__name__}. Freeze batch normalisation and set "
                "the rate of dropout to 0, or leave chunk_images at 0."
            )
