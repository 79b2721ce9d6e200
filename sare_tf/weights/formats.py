"""Names of the formats of files of trained weights."""

# Arrays by name, which the names tell apart.
ARRAY_FORMATS = (
    "openibl",
    "pytorch_netvlad",
    "patch_netvlad",
    "salad",
    "megaloc",
    "boq",
    "mixvpr",
    "convap",
    "cosplace",
    "supervlad",
    "implicit_aggregation",
    "benchmark",
    "dinov2",
    "torchvision",
)
FORMATS = (*ARRAY_FORMATS, "anyloc", "netvlad_mat", "netvlad_tf", "keras")
# Formats that `export_weights` writes.
WRITTEN_FORMATS = ("openibl", "pytorch_netvlad")
