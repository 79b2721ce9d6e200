"""Words that the columns of a manifest and the options may hold."""

SPLITS = ("train", "val", "test")
ALL_SPLITS = "all"
ROLES = ("database", "query")
# How positives are found; `positives.choose_rule` resolves "auto".
RULES = ("auto", "radius", "place", "list")
# Rules of potential positives in training: arguments of
# `positives.find_positives` beside the radius. OpenIBL,
# ibl/utils/data/sampler.py: all images within the radius. NetVLAD, dbBase.m and
# dbTokyoTimeMachine.m: those also farther than 1 m, and of another time.
TRAIN_RULES = {
    "openibl": {"min_distance_m": 0.0, "other_timestamp": False},
    "netvlad": {"min_distance_m": 1.0, "other_timestamp": True},
}
# What a list says of a database image: a positive, or junk, which is neither
# right nor wrong. Revisited Oxford and Paris divide positives into easy and
# hard ones.
RELATIONS = ("positive", "easy", "hard", "junk")
# Subtasks of Mapillary SLS: summer, winter, old, new, day, night.
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
# Of UTM zones that do not say it, see `readers.zone_notation`.
HEMISPHERES = ("auto", "north", "south")
# What to do with positions that the camera itself doubts.
DOUBTFUL_POSITIONS = ("keep", "leave_out")


def splits_of(names: str) -> tuple[str, ...]:
    """Returns the splits that `--split` names, in the order of `SPLITS`.

    Args:
        names: a split, several with commas between, or "all".

    Raises:
        ValueError: another name, or none.
    """
    given = names.split(",")
    if names == ALL_SPLITS:
        return SPLITS
    if not set(given) <= set(SPLITS):
        raise ValueError(
            f"Expected split to be {ALL_SPLITS}, or names with commas between "
            f"of {', '.join(SPLITS)}. Received: split={names!r}."
        )
    return tuple(split for split in SPLITS if split in given)


def name_of_splits(splits: tuple[str, ...]) -> str:
    """Returns the name that `splits_of` takes, the same for the same splits."""
    return ALL_SPLITS if splits == SPLITS else ",".join(splits)
