"""Options of the loss."""

from sare_tf.losses.registry import (
    KERNEL_NAMES,
    MINER_NAMES,
    PLACE_LOSSES,
    TUPLE_LOSSES,
    takes,
)
from sare_tf.runtime.options import Options, option, options


@options
class LossOptions(Options):
    """Options of the loss."""

    loss: str = option(
        "sare_joint",
        "Over mined tuples, or over batches of places (place_*; similarity_* "
        "needs the extra similarity). Only SARE has --kernel and "
        "--inverse_bandwidth; docs/losses.md compares them.",
        choices=(*TUPLE_LOSSES, *PLACE_LOSSES),
    )
    margin: float | None = option(
        None,
        "Margin of triplet, triplet_unsquared, contrastive, lifted_structure, "
        "quadruplet, circle or cosface. Default: the one of its paper.",
    )
    temperature: float | None = option(
        None,
        "Divisor of the cosines in place_nt_xent and place_sup_con. Default: "
        "0.07.",
        minimum=0,
    )
    similarity_scale: float | None = option(
        None,
        "Factor on the cosines in place_circle (default: 80) and "
        "place_cosface (30, of CosPlace).",
        minimum=0,
    )
    place_miner: str | None = option(
        None,
        "Which pairs of a batch of places count, for place_sare_*, "
        "place_multi_similarity, place_nt_xent, place_sup_con and "
        "place_circle: all, or those that are hard for an image, by the rule "
        "of Multi-Similarity. Default: multi_similarity for "
        "place_multi_similarity, else none.",
        choices=MINER_NAMES,
    )
    kernel: str = option(
        "gaussian",
        "Kernel that turns a distance into a similarity.",
        choices=KERNEL_NAMES,
    )
    inverse_bandwidth: float = option(
        1.0,
        "Factor on squared distances in the loss; 1 is the paper's. Training "
        "from random weights needs more.",
        minimum=0,
    )
    inverse_bandwidth_to: float | None = option(
        None,
        "Inverse bandwidth at the end of --inverse_bandwidth_epochs, changed "
        "by the same factor in each step. Default: it does not change.",
        minimum=0,
    )
    inverse_bandwidth_epochs: int = option(
        0,
        "Epochs until --inverse_bandwidth_to is reached; 0: all of --epochs.",
        minimum=0,
    )
    learned_inverse_bandwidth: bool = option(
        False,
        "Train the inverse bandwidth with the network, from "
        "--inverse_bandwidth on, within --inverse_bandwidth_limits. For all "
        "losses of SARE.",
    )
    inverse_bandwidth_limits: tuple[float, ...] = option(
        (0.5, 100.0), "Limits of a learned inverse bandwidth."
    )
    joint_scaling: str = option(
        "tuples",
        "sare_joint as the mean over tuples, or divided by --num_negatives, as "
        "in the original code; see --learning_rate.",
        choices=("tuples", "negatives"),
    )
    hardest_negatives: int = option(
        0,
        "Images of other places that repel an image, the most similar of the "
        "batch; 0: all. For place_sare_joint and place_sare_independent.",
        minimum=0,
    )

    positive_weights: str = option(
        "equal",
        "How much the positives of an image count, where --place_miner is "
        "offered: all the same; less with their distance, exp(-(d / radius)^2) "
        "with --train_positive_radius_m; or that times the share of a view of "
        "90 degrees that both have in common, by their headings.",
        choices=("equal", "distance", "overlap"),
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_bandwidth()
        if self.positive_weights != "equal" and not (
            takes(self.loss, "positive_weights")
        ):
            raise ValueError(
                "Expected positive_weights='equal' for the loss "
                f"{self.loss}, whose positives have no weights. Received: "
                f"positive_weights={self.positive_weights!r}. Leave "
                "--positive_weights out, or choose place_sare_joint."
            )

    def _check_bandwidth(self) -> None:
        is_scheduled = self.inverse_bandwidth_to is not None
        changes = {
            "inverse_bandwidth_to": is_scheduled,
            "learned_inverse_bandwidth": self.learned_inverse_bandwidth,
        }
        if all(changes.values()):
            raise ValueError(
                "Expected an inverse bandwidth that is learned, or one with a "
                "schedule. Received: learned_inverse_bandwidth=True, "
                f"inverse_bandwidth_to={self.inverse_bandwidth_to}. Leave one "
                "of them out."
            )
        for name, is_given in changes.items():
            if is_given and not takes(self.loss, name):
                raise ValueError(
                    f"Expected no {name} for the loss {self.loss}, which has "
                    "no such inverse bandwidth. Received: "
                    f"{name}={getattr(self, name)}. Leave --{name} out, or "
                    "choose place_sare_joint."
                )
        if (
            is_scheduled
            and not min(self.inverse_bandwidth, self.inverse_bandwidth_to) > 0
        ):
            raise ValueError(
                "Expected positive inverse bandwidths. Received: "
                f"inverse_bandwidth={self.inverse_bandwidth}, "
                f"inverse_bandwidth_to={self.inverse_bandwidth_to}."
            )
        limits = self.inverse_bandwidth_limits
        if len(limits) != 2 or not 0 < limits[0] < limits[1]:
            raise ValueError(
                "Expected a lower and an upper limit, such as 0.5,100. "
                f"Received: inverse_bandwidth_limits={limits}."
            )
        if self.learned_inverse_bandwidth and not (
            limits[0] < self.inverse_bandwidth < limits[1]
        ):
            raise ValueError(
                "Expected an inverse bandwidth between its limits. Received: "
                f"inverse_bandwidth={self.inverse_bandwidth}, "
                f"inverse_bandwidth_limits={limits}. Change one of them."
            )

    @property
    def has_classes(self) -> bool:
        """Whether the loss tells all places of the data apart."""
        return takes(self.loss, "num_places")

    @property
    def is_over_places(self) -> bool:
        """Whether the loss is over batches of places, not over tuples."""
        return self.loss in PLACE_LOSSES
