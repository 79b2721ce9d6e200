"""Names of the formats of files of trained weights."""

# Those that are told apart by the names in a state_dict.
TORCH_FORMATS = (
    "openibl",
    "pytorch_netvlad",
    "patch_netvlad",
    "benchmark",
    "dinov2",
)
FORMATS = (*TORCH_FORMATS, "netvlad_mat", "netvlad_tf", "keras")
# Those that `export_weights` writes.
WRITTEN_FORMATS = ("openibl", "pytorch_netvlad")
