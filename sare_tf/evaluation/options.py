"""Options of `evaluate` and `compare`."""

from typing import ClassVar

from sare_tf.dataset.names import SUBTASKS
from sare_tf.dataset.options import PositivesOptions, SplitOptions
from sare_tf.evaluation.protocols import PROTOCOLS
from sare_tf.records.options import RecordsFolderOptions
from sare_tf.runtime.common_options import BatchOptions
from sare_tf.runtime.options import option, options, path_option
from sare_tf.search.landmark_options import RERANKERS, LandmarkOptions
from sare_tf.search.options import (
    PositionFileOptions,
    RerankOptions,
    SearchOptions,
)
from sare_tf.sequences.options import SequenceLengthOptions, SequenceOptions
from sare_tf.serving.options import ServableOptions


@options
class ProtocolOptions(PositivesOptions, SplitOptions, SequenceLengthOptions):
    """The protocol of an evaluation, and the numbers that it leaves open."""

    protocol: str = option(
        "auto",
        "What is evaluated: a name in sare_tf.evaluation.protocols, such as "
        "pitts30k or msls. auto: the one that --positives names.",
        choices=("auto", *PROTOCOLS),
        is_enum=False,
    )
    positive_frames: int = option(
        10, "Right answers of the protocol frames, inclusive.", minimum=0
    )
    positive_heading_deg: float = option(
        0.0,
        "If above 0, right answers look at most this many degrees away from "
        "where the query looks; for the protocols radius and msls.",
        minimum=0,
        maximum=180,
    )
    other_sequence: bool = option(
        False,
        "Leave out images of the query's own sequence (its clip, drive or "
        "walk): they are neither right nor wrong answers; for the protocols "
        "radius, place and list.",
    )
    msls_subtask: str = option(
        "all",
        "Subtask of the protocols msls: summer, winter, old, new, day, night.",
        choices=SUBTASKS,
    )


@options
class EvaluationOptions(
    SearchOptions,
    RerankOptions,
    LandmarkOptions,
    SequenceOptions,
    PositionFileOptions,
    RecordsFolderOptions,
    ServableOptions,
    ProtocolOptions,
    BatchOptions,
):
    """Options of `evaluate`."""

    REQUIRED: ClassVar = ("index", "records", "evaluation")

    evaluation: str | None = path_option(None, "Folder of metrics and report.")
    recall_at: tuple[int, ...] = option(
        (1, 5, 10, 20), "N of recall@N.", minimum=1
    )

    baseline_images: int = option(
        10_000,
        "Images of the split up to which evaluate also measures small pictures "
        "as descriptors, to compare with; 0: none. Takes some 3 s of a core "
        "for 1,000 images.",
        minimum=0,
    )
    calibrate: bool = option(
        False,
        "Also measure on the queries of the split val, whatever --split is, "
        "how often answers of each confidence are right, and keep it in "
        "--index for locate. If the index lacks the val images, these are "
        "embedded for it.",
    )
    distractors: str | None = path_option(
        None,
        "Folder of photographs from elsewhere, which no image of the database "
        "shows: evaluate counts how often they are taken for a place, and "
        "--calibrate keeps it for locate.",
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_model()
        others = {
            "--rerank": self.rerank,
            "--expand_queries": self.expand_queries,
        }
        given = [name for name, value in others.items() if value]
        if given and self.sequence_length > 1:
            raise ValueError(
                f"Expected {given[0]} or --sequence_length: each makes an "
                "order of its own. Received: both. Leave out one of them."
            )
        if len(given) > 1 and not self.reranks_neighbours:
            raise ValueError(
                "Expected --expand_queries without --rerank by local features, "
                "whose combination is measured for the order of retrieval. "
                f"Received: rerank={self.rerank!r}. Leave out one of them, or "
                f"take --rerank={' or '.join(RERANKERS)}."
            )
        if self.distractors and (
            self.sequence_length > 1
            or self.expand_queries
            or self.reranks_neighbours
        ):
            raise ValueError(
                "Expected --distractors with the order of retrieval or of "
                "local features: how sure answers of sequences and neighbours "
                "are is not measured. Received: distractors="
                f"{self.distractors!r}. Leave out --distractors, or "
                "--sequence_length, --expand_queries and "
                f"--rerank={' or '.join(RERANKERS)}."
            )
        if not self.recall_at:
            raise ValueError(
                "Expected at least one N of recall@N. Received: recall_at=()."
            )

    @property
    def reranks_features(self) -> bool:
        """Whether --rerank looks at local features."""
        return bool(self.rerank) and not self.reranks_neighbours

    @property
    def reranks_neighbours(self) -> bool:
        """Whether --rerank looks at neighbours, not at local features."""
        return self.rerank in RERANKERS


@options
class ComparisonOptions(RecordsFolderOptions):
    """Options of `compare`. With the records, its page shows pictures."""

    comparison: str = path_option(
        "comparison", "Folder of a comparison of evaluations."
    )
    runs: tuple[str, ...] = path_option(
        (), "Folders of evaluations, at least two.", has_flag=False
    )

    def __post_init__(self):
        super().__post_init__()
        if len(self.runs) < 2:
            raise ValueError(
                "Expected the folders of at least two evaluations. Received: "
                f"{list(self.runs)}. Name them after the command."
            )
