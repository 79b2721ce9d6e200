"""Options of what a batch of places is sampled from, and how."""

from sare_tf.runtime.options import Options, option, options, path_option

# Samplers that look at descriptors of the network as it is.
WITH_DESCRIPTORS = ("similar", "cliques")
# Samplers whose places are classes of a grid: what the grid is by default, as
# published, and which parts a batch has.
GRIDS = {
    "cosplace": {"size_m": 10.0, "spacing": 5, "images": 10},
    "eigenplaces": {"size_m": 15.0, "spacing": 3, "images": 5},
}
SAMPLERS = ("random", "regions", *WITH_DESCRIPTORS, *GRIDS)
REGIONS = ("folder", "utm_zone", "sequence_id", "condition")


@options
class SamplingOptions(Options):
    """Options of what a batch of places is sampled from, and how."""

    train_records: tuple[str, ...] = path_option(
        (),
        "Folders of records to train on together, with a loss over places: "
        "each batch has a part of every folder, and the losses of the parts "
        "are added. Default: --records.",
    )
    shares: tuple[float, ...] = option(
        (),
        "Shares of --train_records in --places_per_batch, such as 2,1. "
        "Default: equal ones.",
        minimum=0,
    )
    sampler: tuple[str, ...] = option(
        ("random",),
        "Which places meet in a batch, for all folders or for each: any; those "
        "of one --region_by; those that look alike; cliques of images among "
        "places that look alike, as in CliqueMining; or classes of CosPlace or "
        "EigenPlaces, one group each epoch.",
        choices=SAMPLERS,
    )
    region_by: str | None = option(
        None,
        "What tells regions apart, for the samplers regions and cliques: the "
        "first folder of image_id that is not the same everywhere, or a column "
        "of the manifest. Default: for regions folder, for cliques none.",
        choices=REGIONS,
    )
    descriptors_every: int = option(
        1,
        "Epochs after which the samplers similar and cliques embed the "
        "training images again.",
        minimum=1,
    )
    similar_places: int = option(
        15,
        "Places that look like a first one, among which the sampler cliques "
        "looks for cliques.",
        minimum=1,
    )
    steps_per_epoch: int = option(
        0,
        "Steps of an epoch over places; 0: until the places of the largest "
        "part were drawn once.",
        minimum=0,
    )
    class_size_m: float | None = option(
        None,
        "Side of the cell of a class. Default: 10 for cosplace, 15 for "
        "eigenplaces.",
        minimum=0.01,
    )
    class_heading_deg: float = option(
        30.0,
        "Sector of the headings of a class of cosplace. For eigenplaces, twice "
        "the angle by which an image may be turned from the focal point.",
        minimum=1,
        maximum=360,
    )
    class_spacing: int | None = option(
        None,
        "Every so many cells, in both directions, one is in the same group. "
        "Default: 5 for cosplace, 3 for eigenplaces.",
        minimum=1,
    )
    heading_spacing: int = option(
        2,
        "Every so many sectors, one is in the same group, for cosplace.",
        minimum=1,
    )
    class_images: int | None = option(
        None,
        "Images that a class has at least; others are left out. Default: 10 "
        "for cosplace, 5 for eigenplaces.",
        minimum=2,
    )
    class_groups: int = option(
        0, "Groups to use, in turn; 0: all. CosPlace uses 8.", minimum=0
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_lists()
        if not self.is_over_places:
            for name, is_given in {
                "train_records": self.train_records,
                "sampler": self.sampler != ("random",),
                "steps_per_epoch": self.steps_per_epoch,
            }.items():
                if is_given:
                    raise ValueError(
                        f"Expected no {name} with a loss over tuples. "
                        f"Received: {name}={getattr(self, name)}, "
                        f"loss={self.loss!r}. Choose one of --loss=place_*."
                    )
        if "cliques" in self.sampler and self.has_classes:
            raise ValueError(
                "Expected a loss over pairs with the sampler cliques, whose "
                "places are other ones in each batch. Received: "
                f"loss={self.loss!r}. Choose another --sampler or --loss."
            )
        turn = self.class_heading_deg * self.heading_spacing
        if "cosplace" in self.sampler and 360.0 % turn:
            raise ValueError(
                "Expected sectors of which every so many fill the circle, so "
                "that no two of a group touch. Received: "
                f"class_heading_deg={self.class_heading_deg}, "
                f"heading_spacing={self.heading_spacing}. Choose a divisor of "
                "360 for their product."
            )
        if len(self.places_of_parts()) > 1 and self.memory_images:
            raise ValueError(
                "Expected memory_images=0 with batches of several parts. "
                f"Received: memory_images={self.memory_images}, "
                f"sampler={list(self.sampler)}, "
                f"train_records={list(self.train_records)}."
            )

    def _check_lists(self) -> None:
        folders = len(self.train_records) or 1
        if len(set(self.train_records)) < len(self.train_records):
            raise ValueError(
                "Expected each folder of records once. Received: "
                f"train_records={list(self.train_records)}."
            )
        if len(self.sampler) not in (1, folders):
            raise ValueError(
                "Expected one sampler, or one for each of --train_records. "
                f"Received: sampler={list(self.sampler)}, {folders} folders."
            )
        if self.shares and (
            len(self.shares) != folders or not all(self.shares)
        ):
            raise ValueError(
                "Expected a share above 0 for each of --train_records. "
                f"Received: shares={list(self.shares)}, {folders} folders."
            )

    @property
    def samplers(self) -> tuple[str, ...]:
        """The sampler of each folder of records."""
        folders = len(self.train_records) or 1
        return self.sampler * (folders if len(self.sampler) == 1 else 1)

    def places_of_folders(self) -> tuple[int, ...]:
        """Divides the places of a batch among the folders of records.

        Raises:
            ValueError: a folder has no whole number of places, or too few.
        """
        shares = self.shares or (1.0,) * (len(self.train_records) or 1)
        places = [self.places_per_batch * s / sum(shares) for s in shares]
        whole = [round(count) for count in places]
        # EigenPlaces divides its own places in two.
        parts = [2 if name == "eigenplaces" else 1 for name in self.samplers]
        if any(abs(a - b) > 1e-6 for a, b in zip(places, whole, strict=True)):
            raise ValueError(
                "Expected shares that divide the places of a batch. Received: "
                f"places_per_batch={self.places_per_batch}, which would be "
                f"{[round(count, 2) for count in places]}. Change --shares or "
                "--places_per_batch."
            )
        for count, divided in zip(whole, parts, strict=True):
            if count % divided or count // divided < 2:
                raise ValueError(
                    "Expected at least 2 places in each part of a batch, and "
                    "an even number for eigenplaces, half of which are "
                    f"lateral. Received: {whole} places by --shares, samplers "
                    f"{list(self.samplers)}. Raise --places_per_batch."
                )
        return tuple(whole)

    def places_of_parts(self) -> tuple[int, ...]:
        """Returns the places of each part of a batch, see `place_parts`."""
        places = []
        for count, name in zip(
            self.places_of_folders(), self.samplers, strict=True
        ):
            two = name == "eigenplaces"
            places += [count // 2] * 2 if two else [count]
        return tuple(places)

    def grid_of(self, sampler: str) -> dict[str, float]:
        """Returns the side of a class's cell, its spacing and its images."""
        given = {
            "size_m": self.class_size_m,
            "spacing": self.class_spacing,
            "images": self.class_images,
        }
        return GRIDS[sampler] | {
            name: value for name, value in given.items() if value is not None
        }
