"""Names that the columns of a manifest and the flags may hold."""

SPLITS = ("train", "val", "test")
ROLES = ("database", "query")
# How positives are told: `positives.choose_rule` resolves "auto".
RULES = ("auto", "radius", "place", "list")
# Rules for potential positives in training, see `manifest.TRAIN_RULES`.
TRAIN_RULES = ("openibl", "netvlad")
# Subtasks of Mapillary SLS: summer, winter, old, new, day, night.
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
