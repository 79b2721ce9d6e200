"""Options of datasets: reading them, their splits and their positives."""

from typing import Any

from sare_tf.dataset.names import (
    ALL_SPLITS,
    DOUBTFUL_POSITIONS,
    HEMISPHERES,
    RULES,
    SPLITS,
    TRAIN_RULES,
    name_of_splits,
    splits_of,
)
from sare_tf.dataset.readers import DEFAULTS, READERS
from sare_tf.runtime.common_options import SeedOptions
from sare_tf.runtime.options import (
    Options,
    option,
    options,
    path_option,
    with_default,
)


@options
class RadiusOptions(Options):
    """The radius within which images show the same place."""

    positive_radius_m: float = option(
        25.0,
        "Metres within which a database image is a right answer, inclusive.",
        minimum=0,
    )


@options
class DatasetOptions(RadiusOptions, SeedOptions):
    """Which images are read, and how splits and roles are chosen."""

    dataset: str | None = path_option(
        None, "Folder of raw images, in a known layout."
    )
    reader: str = option(
        "at_names",
        f"Layout of --dataset, see data/README.md: {', '.join(READERS)}.",
        choices=READERS,
        is_enum=False,
    )
    split_fractions: tuple[float, ...] = option(
        (0.6, 0.15, 0.25),
        "Shares of places that become train, val and test, for layouts "
        "without splits.",
    )
    query_fraction: float = option(
        0.25,
        "Share of each place's images that become queries, for layouts "
        "without roles.",
    )
    utm_zone: str = option(
        "",
        "UTM zone of all images, such as 17T, for a --dataset with latitudes "
        "and longitudes. Empty: the zone of their median point.",
    )
    utm_hemisphere: str = option(
        "auto",
        "Hemisphere of UTM zones that do not name it, such as 34, or 18S where "
        "S may also be the latitude band. auto: northings decide, and zones "
        "for which they do not are refused.",
        choices=HEMISPHERES,
    )
    doubtful_positions: str = option(
        "keep",
        "What to do with photographs whose EXIF header doubts their position: "
        "no fix, an error above --positive_radius_m, or another datum than "
        "WGS84.",
        choices=DOUBTFUL_POSITIONS,
    )

    @property
    def reader_options(self) -> dict[str, Any]:
        """The options of `readers.read`."""
        return {name: getattr(self, name) for name in ("reader", *DEFAULTS)}


@options
class InitOptions(DatasetOptions):
    """Options of `init`."""

    reader: str = with_default(DatasetOptions, "reader", "place_folders")
    size: str = option(
        "small",
        "Network of the flagfile: small for two CPU cores, scratch for them "
        "without a download, large for a GPU.",
        choices=("small", "scratch", "large"),
    )
    folder: str = path_option(
        "", "Folder of the flagfile and of all results.", has_flag=False
    )


@options
class PositivesOptions(RadiusOptions):
    """Which images show the same place."""

    positives: str = option(
        "auto",
        "Positives by coordinates and radius, by place_id, or by the list of "
        "the dataset. auto: by its list if it has one, by coordinates if every "
        "image has them, and by place_id otherwise.",
        choices=RULES,
    )


@options
class TrainPositivesOptions(Options):
    """Which images may be positives in training."""

    train_positive_radius_m: float = option(
        10.0, "Metres to a potential positive in training.", minimum=0
    )
    train_positives: str = option(
        "openibl",
        "Potential positives in training. openibl: all images within "
        "--train_positive_radius_m. netvlad: only those farther than 1 m and, "
        "if the query has a time stamp, of another one.",
        choices=TRAIN_RULES,
    )


@options
class SplitOptions(Options):
    """The splits that are indexed and evaluated."""

    split: str = option(
        "test",
        "Splits to index and evaluate: one of "
        f"{', '.join(SPLITS)}, several with commas between, or "
        f"{ALL_SPLITS}.",
    )

    def __post_init__(self):
        super().__post_init__()
        name = name_of_splits(self.splits)
        object.__setattr__(self, "split", name)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, in the order of `names.SPLITS`."""
        return splits_of(self.split)
