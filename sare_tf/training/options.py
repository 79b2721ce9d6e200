"""Options of training and of exporting what was trained."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from sare_tf.dataset.names import SPLITS
from sare_tf.dataset.options import PositivesOptions, TrainPositivesOptions
from sare_tf.losses.options import LossOptions
from sare_tf.model.options import (
    CheckpointsFolderOptions,
    ModelOptions,
    WhiteningOptions,
)
from sare_tf.model.registry import AUGMENTATION_DRAWS, PRECISIONS
from sare_tf.records.options import RecordsFolderOptions, TuplesFolderOptions
from sare_tf.runtime import network_address
from sare_tf.runtime.common_options import (
    BatchOptions,
    ImageSizeOptions,
    SeedOptions,
)
from sare_tf.runtime.options import (
    Options,
    option,
    options,
    path_option,
    with_default,
)
from sare_tf.serving.options import ExportFolderOptions
from sare_tf.training.fine_tuning_options import FineTuningOptions
from sare_tf.training.sampling_options import SamplingOptions


@options
class TupleOptions(TuplesFolderOptions):
    """Options of tuples, and of how they are mined."""

    tuples_per_batch: int = option(
        4, "Tuples of one step, over all replicas.", minimum=1
    )
    num_negatives: int = option(10, "Negatives of a tuple.", minimum=1)
    negative_pool: int = option(
        1000,
        "Random negatives of a query, the hardest of which are used. 0: the "
        "whole database, which takes no longer, but is not the paper's rule.",
        minimum=0,
    )
    queries_per_epoch: int = option(
        0, "Training queries of one epoch; 0: all.", minimum=0
    )
    refresh_every_queries: int = option(
        1000,
        "Training queries after which descriptors are computed again for "
        "mining; twice as many each time the rate is halved. 0: once per "
        "epoch.",
        minimum=0,
    )
    cache_dtype: str = option(
        "float32",
        "Type of the descriptors held in memory in training.",
        choices=("float32", "float16"),
    )


@options
class PlaceBatchOptions(Options):
    """Options of batches of places, and of their step."""

    places_per_batch: int = option(
        16, "Places of one step, with a loss over places.", minimum=2
    )
    images_per_place: int = option(
        4,
        "Images of a place in a step: at least 2, as a loss over pairs needs; "
        "1 is enough for place_cosface.",
        minimum=1,
    )
    memory_images: int = option(
        0,
        "Images of earlier batches whose descriptors take part in a step, "
        "unchanged; 0: none. For place_sare_joint and place_sare_independent.",
        minimum=0,
    )
    memory_after_steps: int = option(
        1000,
        "Steps after which --memory_images take part: at first, descriptors "
        "change too fast.",
        minimum=0,
    )
    chunk_images: int = option(
        0,
        "Images of a replica that are propagated at a time, with a loss over "
        "places: for batches larger than memory, in more time. 0: all at once.",
        minimum=0,
    )


@options
class OptimizerOptions(Options):
    """Options of the optimizer, its rate and the average of the weights."""

    optimizer: str = option(
        "sgd",
        "Update rule: SGD with momentum as in the original code, or AdamW.",
        choices=("sgd", "adam"),
    )
    learning_rate: float = option(
        0.001,
        "For the mean over tuples. The original code divides the gradient of "
        "every loss by the number of negatives: to follow one of its rates, "
        "divide it by --num_negatives for contrastive, n_pair, "
        "lifted_structure and angular, and for sare_joint unless "
        "--joint_scaling=negatives. With --optimizer=adam the scale does not "
        "matter.",
        minimum=0,
    )
    schedule: str = option(
        "halving",
        "The rate over the run: halved every --halve_every epochs, or along a "
        "cosine down to 0 at the end of --epochs.",
        choices=("halving", "cosine"),
    )
    halve_every: int = option(5, "Epochs until the rate is halved.", minimum=0)
    warmup_epochs: int = option(
        0, "Epochs in which the rate first rises from 0.", minimum=0
    )
    weight_decay: float = option(
        0.001, "Decay of all trained weights.", minimum=0
    )
    averaging_momentum: float = option(
        0.0,
        "Momentum of an average of the weights over the steps, such as 0.999; "
        "the average is then what is validated and exported. 0: none.",
        minimum=0,
        maximum=1,
    )


@options
class TrainingOptions(
    RecordsFolderOptions,
    CheckpointsFolderOptions,
    ImageSizeOptions,
    ModelOptions,
    LossOptions,
    PositivesOptions,
    TrainPositivesOptions,
    TupleOptions,
    PlaceBatchOptions,
    SamplingOptions,
    OptimizerOptions,
    FineTuningOptions,
    BatchOptions,
    SeedOptions,
):
    """Options of `train`."""

    REQUIRED: ClassVar = ("records", "checkpoints")
    # Paths, and options that do not decide the result of a run.
    _NOT_OF_THE_RUN: ClassVar = (
        *("records", "train_records", "val_records", "checkpoints"),
        "frozen_features",
        *("dry_run", "profile", "data_service"),
    )

    epochs: int = option(30, "Passes over the training queries.", minimum=0)
    patience: int = option(
        10, "Epochs without a better validation recall; 0: no stop."
    )
    val_queries: int = option(
        1000, "Validation queries, drawn by --seed; 0: all.", minimum=0
    )
    val_records: tuple[str, ...] = path_option(
        (),
        "Folders of records whose val splits choose the best epoch, by the "
        "mean of their recalls. Default: --records.",
    )
    interpolation: tuple[float, ...] = option(
        (),
        "Shares of the last epoch's weights, such as 0.25,0.5,0.75: at the "
        "end, networks between epoch 0 and the last epoch are validated, and "
        "the best one is written to CHECKPOINTS/interpolated, for export. "
        "Default: none.",
        minimum=0,
        maximum=1,
    )
    augment: tuple[str, ...] = option(
        (),
        "How images are varied in training: any of crop (and zoom), "
        "perspective, colour, grey, erase, such as crop,colour; and "
        "randaugment, as networks on GSV-Cities are trained.",
        choices=tuple(AUGMENTATION_DRAWS),
    )
    augment_same: bool = option(
        False,
        "Vary all images of a tuple or place in the same way, instead of each "
        "by itself.",
    )
    precision: str = option(
        "float32",
        "Numbers of the convolutions in training. Descriptors, losses and "
        "weights are always float32; see --export_precision for exports.",
        choices=("float32", "mixed_bfloat16"),
    )
    jit_compile: bool | None = option(
        None,
        "Compile the step with XLA, on one device. Default: Keras decides.",
    )
    strategy: str = option(
        "none",
        "Train on one device; on all GPUs of this machine; or on all machines "
        "of TF_CONFIG. Batches are those of all replicas together.",
        choices=("none", "mirrored", "multi_worker"),
    )
    data_service: str | None = option(
        None,
        "Address of a dispatcher of data_service, such as grpc://host:5050, "
        "whose workers read and decode all images of a training, into the same "
        "batches. Default: this process reads them.",
    )
    max_bad_images: int = option(
        10,
        "Images that a run leaves out, with a warning, if their records become "
        "unreadable; with more of them it stops.",
        minimum=0,
    )
    dry_run: bool = option(
        False,
        "Print the steps, parameters and memory of a training, and write "
        "nothing.",
    )
    profile: bool = option(
        False,
        "Write a profile of some steps of the first epoch that is trained. To "
        "see it, TensorBoard needs the package tensorboard-plugin-profile.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(
                "Expected fewer epochs of warm-up than of training. Received: "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs}. "
                "Lower --warmup_epochs."
            )
        if self.averaging_momentum >= 1:
            raise ValueError(
                "Expected a momentum of at least 0 and below 1. Received: "
                f"averaging_momentum={self.averaging_momentum}."
            )
        if self.tuples is not None and self.is_over_places:
            raise ValueError(
                "Expected a loss over tuples with tuples. Received: "
                f"loss={self.loss!r}, tuples={self.tuples!r}. Choose another "
                "--loss, or leave --tuples out."
            )
        if (
            self.is_over_places
            and self.images_per_place < 2
            and not self.has_classes
        ):
            raise ValueError(
                "Expected at least 2 images of a place: the loss "
                f"{self.loss} compares pairs of images, and an image needs "
                "another one of its place to attract it. Received: "
                f"images_per_place={self.images_per_place}. Raise "
                "--images_per_place, or choose --loss=place_cosface."
            )
        if self.data_service is not None:
            network_address.parse(self.data_service)
        if self.data_service is not None and self.tuples is not None:
            raise ValueError(
                "Expected tuples or a data_service. Received: tuples="
                f"{self.tuples!r}, data_service={self.data_service!r}. Tuple "
                "records are read in sequence, by the training itself; leave "
                "one out."
            )
        if len(set(self.augment)) < len(self.augment):
            raise ValueError(
                "Expected each effect once. Received: "
                f"augment={list(self.augment)}."
            )

    def of_the_run(self) -> dict[str, Any]:
        """Returns the options that decide the result of a run, as JSON."""
        return self._as_json(dataclasses.asdict(self))

    @classmethod
    def defaults_of_the_run(cls) -> dict[str, Any]:
        """Returns the defaults of `of_the_run`."""
        return cls._as_json(
            {field.name: field.default for field in dataclasses.fields(cls)}
        )

    @classmethod
    def _as_json(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if name not in cls._NOT_OF_THE_RUN
        }

    def seed_of(self, *parts: int) -> int:
        """Derives a seed for a part of the run, such as an epoch's number."""
        sequence = np.random.SeedSequence((self.seed, *parts))
        return int(sequence.generate_state(1)[0])

    def halvings(self, epoch: int) -> int:
        """Counts the halvings of the rate before an epoch, from 1."""
        if self.schedule != "halving" or not self.halve_every:
            return 0
        return (epoch - 1) // self.halve_every


@options
class ExportOptions(
    CheckpointsFolderOptions,
    ExportFolderOptions,
    RecordsFolderOptions,
    WhiteningOptions,
    BatchOptions,
    SeedOptions,
):
    """Options of `export`."""

    REQUIRED: ClassVar = ("checkpoints", "export")
    # What the checkpoint fixes. None: as it was trained.
    FIXED: ClassVar = (
        "backbone",
        "aggregation",
        "num_clusters",
        "image_height",
        "image_width",
    )

    backbone: str | None = with_default(ModelOptions, "backbone", None)
    aggregation: str | None = with_default(ModelOptions, "aggregation", None)
    num_clusters: int | None = with_default(ModelOptions, "num_clusters", None)
    image_height: int | None = with_default(
        ImageSizeOptions, "image_height", None
    )
    image_width: int | None = with_default(
        ImageSizeOptions, "image_width", None
    )
    epoch: str | None = path_option(
        None, "Folder of the epoch; the best one by default.", has_flag=False
    )
    whitening_samples: int = option(
        10_000,
        "Database images of the train split that whitening is fitted to; more "
        "than --whitening_dimension.",
        minimum=2,
    )
    whitening_pairs: bool = option(
        False,
        "Learn whitening from pairs of a query and a positive of the train "
        "split, so that right pairs differ equally in all directions, instead "
        "of from the variance of database images.",
    )
    truncate_dimension: int = option(
        0,
        "Keep only so many of a descriptor's first numbers, after whitening, "
        "and normalise again; 0: all. Without whitening only for a network "
        "that was trained to put most into the first ones.",
        minimum=0,
    )
    export_precision: str = option(
        "float32",
        "What the backbone of an exported model computes in, and stores its "
        "kernels in. Aggregation, whitening and descriptors are always "
        "float32.",
        choices=PRECISIONS,
    )
    measured_images: int = option(
        1000,
        "Images on which export measures what its precision, whitening and "
        "truncation change: recall, neighbours and descriptors, beside whole "
        "ones in float32; 0: none.",
        minimum=0,
    )
    measured_split: str = option(
        "val", "Split of --records for --measured_images.", choices=SPLITS
    )
    allow_other_records: bool = option(
        False, "Fit whitening to --records that were not trained on."
    )
    scales: tuple[float, ...] = option(
        (1.0,),
        "Sizes at which an exported model embeds an image, relative to its "
        "input, such as 1,0.7071,0.5; their descriptors are averaged.",
    )
    model_licence: str | None = option(
        None, "Licence of the exported model, for its card."
    )
