"""The options of training: one field per flag of the same name."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained and how. Each is the flag of the same name."""

    image_height: int = 480
    image_width: int = 640
    backbone: str = "vgg16"
    aggregation: str = "netvlad"
    num_clusters: int = 64
    weights: str | None = None
    cut_layer: str | None = None
    train_from: str | None = None
    netvlad_centres: str | None = None
    loss: str = "sare_joint"
    kernel: str = "gaussian"
    inverse_bandwidth: float = 1.0
    margin: float | None = None
    joint_scaling: str = "tuples"
    positives: str = "auto"
    positive_radius_m: float = 25.0
    train_positive_radius_m: float = 10.0
    train_positives: str = "openibl"
    tuples: str | None = None
    epochs: int = 30
    patience: int = 10
    tuples_per_batch: int = 4
    num_negatives: int = 10
    negative_pool: int = 1000
    queries_per_epoch: int = 0
    places_per_batch: int = 16
    images_per_place: int = 4
    hardest_negatives: int = 0
    memory_images: int = 0
    memory_after_steps: int = 1000
    chunk_images: int = 0
    refresh_every_queries: int = 1000
    cache_dtype: str = "float32"
    val_queries: int = 1000
    optimizer: str = "sgd"
    learning_rate: float = 0.001
    schedule: str = "halving"
    halve_every: int = 5
    warmup_epochs: int = 0
    weight_decay: float = 0.001
    averaging_momentum: float = 0.0
    augment: list[str] = dataclasses.field(default_factory=list)
    augment_same: bool = False
    precision: str = "float32"
    jit_compile: bool | None = None
    max_bad_images: int = 10
    batch_size: int = 32
    strategy: str = "none"
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in ("halving", "cosine"):
            raise ValueError(
                "Expected schedule to be 'halving' or 'cosine'. Received: "
                f"schedule={self.schedule!r}."
            )
        if self.precision not in ("float32", "mixed_bfloat16"):
            raise ValueError(
                "Expected precision to be 'float32' or 'mixed_bfloat16'. "
                f"Received: precision={self.precision!r}."
            )
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(
                "Expected fewer epochs of warm-up than of training. Received: "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs}. "
                "Lower --warmup_epochs."
            )
        if not 0 <= self.averaging_momentum < 1:
            raise ValueError(
                "Expected a momentum of at least 0 and below 1. Received: "
                f"averaging_momentum={self.averaging_momentum}."
            )

    def seed_of(self, *parts: int) -> int:
        """A seed for a part of the run, told by numbers such as its epoch."""
        sequence = np.random.SeedSequence((self.seed, *parts))
        return int(sequence.generate_state(1)[0])

    def halvings(self, epoch: int) -> int:
        """How often the learning rate was halved before this epoch, from 1."""
        if self.schedule != "halving" or not self.halve_every:
            return 0
        return (epoch - 1) // self.halve_every
