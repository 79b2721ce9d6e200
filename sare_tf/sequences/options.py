"""Options of queries that follow each other."""

from sare_tf.runtime.options import (
    Options,
    option,
    options,
    path_option,
    with_default,
)

METHODS = ("seqslam", "smoothing", "filter", "average")


@options
class SequenceLengthOptions(Options):
    """How many queries follow each other."""

    sequence_length: int = option(
        1,
        "Images that follow each other and are looked up together, such as 5; "
        "1: each on its own.",
        minimum=1,
        maximum=1000,
    )


@options
class SequenceOptions(SequenceLengthOptions):
    """How queries that follow each other are looked up together."""

    sequence_method: str = option(
        "seqslam",
        "How: seqslam searches for trajectories of constant velocity. "
        "smoothing and filter are a Bayes filter over the images of the "
        "database, with a motion model; smoothing takes the images before and "
        "after, filter those before. average takes the mean descriptor.",
        choices=METHODS,
    )
    sequence_velocity: tuple[float, ...] = option(
        (0.8, 1.2),
        "Smallest and largest velocity of seqslam, in frames of the database "
        "per frame of the query. Below 0 is backwards.",
    )
    sequence_velocity_step: float = option(
        0.1, "Step between the velocities of seqslam.", minimum=1e-3
    )
    sequence_contrast: int = option(
        0,
        "Images on which seqslam normalises the local contrast of distances, "
        "10 in its paper; 0: none.",
        minimum=0,
    )
    sequence_window: tuple[int, ...] = option(
        (-2, 9),
        "Least and most images of the database by which smoothing and filter "
        "let the camera move on between two queries.",
    )
    sequence_step_m: float = option(
        0.0,
        "If above 0, smoothing and filter take positions for the order of "
        "images: the metres between two queries have this standard deviation.",
        minimum=0,
    )
    sequence_jump: float = option(
        0.01,
        "Probability with which smoothing and filter let the camera be "
        "anywhere at the next query.",
        minimum=0,
        maximum=1,
    )
    sequence_evidence: float = option(
        5.0,
        "How many times as likely smoothing and filter take a query where its "
        "descriptor is nearest (quantile 0.025 of the distances) as where it "
        "is farthest (0.975).",
        minimum=1,
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("sequence_velocity", "sequence_window"):
            ends = getattr(self, name)
            if len(ends) != 2 or ends[0] > ends[1]:
                raise ValueError(
                    f"Expected {name} as a smallest and a largest number. "
                    f"Received: {name}={ends}."
                )
        low, high = self.sequence_velocity
        if (high - low) / self.sequence_velocity_step > 1000:
            raise ValueError(
                "Expected at most 1,000 velocities. Received: "
                f"sequence_velocity={self.sequence_velocity}, "
                f"sequence_velocity_step={self.sequence_velocity_step:g}. Take "
                "larger steps."
            )


@options
class TrackOptions(SequenceOptions):
    """A sequence that is looked up."""

    sequence_length: int = with_default(
        SequenceLengthOptions, "sequence_length", 10
    )
    sequence: str | None = path_option(
        None,
        "Folder of photographs that follow each other, or a video, which "
        "locate looks up together. --write_positions then writes a track.",
    )
    frames_per_second: float = option(
        1.0,
        "Frames that --sequence takes from each second of a video.",
        minimum=1e-3,
        maximum=1000,
    )
    least_probability: float = option(
        0.5,
        "Leave a gap in the track of --sequence where its place is less "
        "probable than this.",
        minimum=0,
        maximum=1,
    )
