"""The network that is trained, made from the options of training.

Options that do not fit together are refused here, before a run begins.
"""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from sare_tf import losses, model
from sare_tf.distributed import strategies
from sare_tf.model import graph_parts, vit
from sare_tf.model.registry import WITH_CENTRES
from sare_tf.training import (
    bandwidth_schedule,
    fine_tuning_optimizers,
    rate_factors,
)
from sare_tf.training.options import TrainingOptions
from sare_tf.training.place_network import PlaceNetwork
from sare_tf.training.split import Split
from sare_tf.training.stored_tuples import StoredTuples


def build(
    train: Split | StoredTuples,
    options: TrainingOptions,
    *,
    group_sizes: Sequence[int] = (),
    parts: Sequence[tuple[str, int]] = (),
) -> keras.Model:
    """Builds the network, and compiles it with its loss and optimizer.

    Args:
        train: data whose images NetVLAD's clusters are first made of.
        options: options of training.
        group_sizes: number of places of each group, see `build_loss`.
        parts: of a batch, see `PlaceNetwork`.

    Returns:
        keras.Model from batches to descriptors, compiled.

    Raises:
        ValueError: options that do not fit together.
    """
    centres = None
    if options.netvlad_centres:
        if options.aggregation not in WITH_CENTRES:
            raise ValueError(
                "Expected aggregation='netvlad' with netvlad_centres. "
                f"Received: aggregation={options.aggregation!r}. Leave "
                "--netvlad_centres out."
            )
        centres = model.read_centres(options.netvlad_centres)
    embedder = build_embedder(options)
    if options.aggregation in WITH_CENTRES:
        try:
            model.initialise_netvlad(
                embedder,
                train.first_images(),
                centres=centres,
                seed=options.seed,
            )
        except tf.errors.DataLossError as error:
            if options.tuples is None:
                raise  # `unreadable_images` finds the image
            raise train.tuple_records.damaged(error) from error
    network = _uncompiled(embedder, options, parts)
    network.compile(
        optimizer=build_optimizer(embedder, options),
        loss=build_loss(options, group_sizes=group_sizes),
        jit_compile="auto"
        if options.jit_compile is None
        else options.jit_compile,
    )
    # Built now, so that epoch 0 is saved with it and training can resume there.
    network.optimizer.build(network.trainable_variables)
    return network


def over(
    network: keras.Model, embedder: keras.Model, options: TrainingOptions
) -> keras.Model:
    """Returns a network that is trained in the place of another one.

    Args:
        network: network of `build`, compiled; perhaps loaded.
        embedder: another form of its embedder, with the same weights.
        options: options of training.

    Returns:
        keras.Model with the optimizer, loss and memory of the network.
    """
    other = _uncompiled(
        embedder,
        dataclasses.replace(options, memory_images=0),
        network.parts if options.is_over_places else (),
    )
    if options.is_over_places:
        other.share_memory(network)
    other.compile(
        optimizer=network.optimizer,
        loss=network.loss,
        jit_compile=network.jit_compile,
    )
    return other


def form_of(embedder: keras.Model, options: TrainingOptions) -> keras.Model:
    """Returns the form of an embedder that is trained, see `graph_parts`.

    Raises:
        ValueError: there are no frozen layers to keep the features of.
    """
    sizes = {"height": options.image_height, "width": options.image_width}
    if options.cache_frozen:
        return graph_parts.split(
            embedder, **sizes, recompute=options.recompute_blocks
        ).trained
    if options.recompute_blocks:
        return graph_parts.recomputed(embedder, **sizes)
    return graph_parts.fast(embedder, **sizes)


def _uncompiled(
    embedder: keras.Model,
    options: TrainingOptions,
    parts: Sequence[tuple[str, int]],
) -> keras.Model:
    augmentation = None
    if options.augment:
        augmentation = model.Augmentation(options.augment)
    if options.is_over_places:
        return PlaceNetwork(
            embedder,
            augmentation=augmentation,
            chunk_images=options.chunk_images,
            memory_images=options.memory_images,
            memory_after_steps=options.memory_after_steps,
            separation_m=options.positive_radius_m,
            parts=parts,
        )
    return model.over_tuples(
        embedder,
        augmentation=augmentation,
        path_draws=options.path_draws,
    )


def build_optimizer(
    embedder: keras.Model, options: TrainingOptions
) -> keras.optimizers.Optimizer:
    """Builds the optimizer, with rates of the weights if they differ."""
    factors = rate_factors.of_embedder(
        embedder,
        backbone_rate=options.backbone_rate,
        head_rate=options.head_rate,
        netvlad_rate=options.netvlad_rate,
        layer_decay=options.layer_decay,
    )
    return fine_tuning_optimizers.build(
        options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        averaging_momentum=options.averaging_momentum,
        rate_factors=factors,
        l2_to_start=options.l2_to_start,
        num_pulled=len(embedder.get_layer("backbone").trainable_weights),
    )


def build_embedder(options: TrainingOptions) -> keras.Model:
    """Builds the embedder, [B, H, W, 3] -> [B, D].

    Raises:
        ValueError: unknown names, or no weight is trained.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(options.precision)
    try:
        embedder = model.build_embedder(
            backbone=options.backbone,
            aggregation=options.aggregation,
            num_clusters=options.num_clusters,
            weights=options.weights,
            cut_layer=options.cut_layer,
            train_from=options.train_from,
            image_size=(options.image_height, options.image_width),
        )
    finally:
        keras.config.set_dtype_policy(policy)
    if options.drop_path:
        vit.set_drop_path(embedder.get_layer("backbone"), options.drop_path)
    if not embedder.trainable_weights:
        raise ValueError(
            "Expected weights to train. Received: "
            f"train_from={options.train_from!r}, "
            f"aggregation={options.aggregation!r}, which has none. Name a "
            "layer of the backbone by --train_from."
        )
    return embedder


def build_loss(
    options: TrainingOptions, *, group_sizes: Sequence[int]
) -> keras.losses.Loss:
    """Builds the loss over tuples or over places.

    Args:
        options: options of training.
        group_sizes: number of places in each group of the data, for a loss
            that tells the places of a group apart.

    Raises:
        ValueError: options that do not fit the loss.
    """
    return losses.build(
        options.loss,
        kernel=options.kernel,
        inverse_bandwidth=bandwidth_schedule.initial(options),
        num_places=sum(group_sizes) if options.has_classes else None,
        group_sizes=tuple(group_sizes)
        if options.has_classes and len(group_sizes) > 1
        else None,
        margin=options.margin,
        scale=options.similarity_scale,
        temperature=options.temperature,
        miner=options.place_miner,
        scaling=options.joint_scaling,
        hardest_negatives=options.hardest_negatives,
    )


def check_batch(
    strategy: tf.distribute.Strategy, options: TrainingOptions
) -> None:
    """Refuses batches that do not fit the replicas, chunks or loss.

    Raises:
        ValueError: a size does not fit.
    """
    if not options.is_over_places:
        for name in ("chunk_images", "memory_images"):
            if getattr(options, name):
                raise ValueError(
                    f"Expected {name}=0 with a loss over tuples. Received: "
                    f"{name}={getattr(options, name)}, loss={options.loss!r}. "
                    "Choose one of --loss=place_*."
                )
        strategies.check_batch(
            strategy,
            size=options.tuples_per_batch,
            what="tuples, by --tuples_per_batch",
        )
        return
    size = options.places_per_batch * options.images_per_place
    strategies.check_batch(
        strategy,
        size=size,
        what="images, by --places_per_batch times --images_per_place",
    )
    of_a_replica = size // strategy.num_replicas_in_sync
    if options.chunk_images and of_a_replica % options.chunk_images:
        raise ValueError(
            "Expected chunk_images to divide the images of a replica. "
            f"Received: chunk_images={options.chunk_images}, {of_a_replica} "
            "images. Change --chunk_images or --places_per_batch."
        )
    if options.memory_images and not options.loss.startswith("place_sare"):
        raise ValueError(
            "Expected memory_images=0 with a loss other than "
            "place_sare_joint and place_sare_independent. Received: "
            f"memory_images={options.memory_images}, loss={options.loss!r}."
        )
    if options.memory_images and options.positive_weights != "equal":
        raise ValueError(
            "Expected memory_images=0 with weights of positives. Received: "
            f"memory_images={options.memory_images}, "
            f"positive_weights={options.positive_weights!r}."
        )
