"""Files of trained weights -> what they hold: one module per source.

What a file is is told by its content. A reader returns `Found`, in one form
for all sources, or refuses: nothing in a file goes unused without a word.
No file is executed, unpacked, or trusted with its sizes.
"""

import zipfile
from pathlib import Path

import h5py

from sare_tf.weights import (
    dinov2,
    keras_vgg,
    mat_file,
    netvlad_mat,
    netvlad_tf,
    openibl,
    patch_netvlad,
    pytorch_netvlad,
    torch_file,
    torch_layers,
    vgl_benchmark,
)
from sare_tf.weights.formats import FORMATS
from sare_tf.weights.imported_network import Found

# Those that are told apart by the names in a state_dict.
_TORCH = {
    "openibl": openibl,
    "pytorch_netvlad": pytorch_netvlad,
    "patch_netvlad": patch_netvlad,
    "benchmark": vgl_benchmark,
    "dinov2": dinov2,
}


def read(
    source: str | Path,
    *,
    format_name: str = "auto",
    pca: str | Path | None = None,
) -> Found:
    """Reads a file of weights.

    Args:
        source: the file; for netvlad_tf its prefix or folder.
        format_name: a name in `FORMATS`, or auto: told by the content.
        pca: the PCA beside a training of OpenIBL.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown format, or a file that does not hold it whole.
    """
    source, pca = Path(source), pca and Path(pca)
    if format_name not in ("auto", *FORMATS):
        raise ValueError(
            f"Expected auto, {', '.join(FORMATS)}. Received: "
            f"format_name={format_name!r}."
        )
    for path in (source, pca):
        if path and not path.exists() and not netvlad_tf.prefix(path):
            raise FileNotFoundError(
                "Expected a file of weights. Received: "
                f"{str(path)!r}, which does not exist."
            )
    kind, state = _open(source)
    if format_name == "auto":
        format_name = kind
    container = kind if kind not in _TORCH else "torch"
    expected = "torch" if format_name in _TORCH else format_name
    if container != expected:
        raise ValueError(
            f"Expected a file of the format {format_name}. Received: "
            f"source={str(source)!r}, which is one of {kind}. Leave --format "
            "out."
        )
    if pca and format_name != "openibl":
        raise ValueError(
            "Expected no PCA file but with OpenIBL's trainings. Received: "
            f"pca={str(pca)!r} with format {format_name}. Leave --pca out."
        )
    if format_name == "openibl":
        return openibl.read(source, state, pca=pca)
    if format_name in _TORCH:
        return _TORCH[format_name].read(source, state)
    if format_name == "netvlad_mat":
        return netvlad_mat.read(source, mat_file.read(source, "net"))
    if format_name == "netvlad_tf":
        return netvlad_tf.read(netvlad_tf.prefix(source))
    return keras_vgg.read(source)


def write(path: str | Path, found: Found, *, format_name: str) -> None:
    """Writes a file that PyTorch loads.

    Args:
        path: the file.
        found: the network, see `building.take_apart`.
        format_name: openibl or pytorch_netvlad.

    Raises:
        ValueError: another format, or a network that has no place in it.
    """
    writers = {
        "openibl": openibl.saved,
        "pytorch_netvlad": pytorch_netvlad.saved,
    }
    if format_name not in writers:
        raise ValueError(
            f"Expected one of {', '.join(writers)}. Received: "
            f"format_name={format_name!r}."
        )
    value = writers[format_name](found)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    torch_file.write(temporary, value)
    temporary.replace(path)


def _open(source: Path):
    """The format of a file, and its tensors if PyTorch saved it."""
    if netvlad_tf.prefix(source):
        return "netvlad_tf", None
    if source.is_dir():
        raise ValueError(
            "Expected a file of weights, or a folder with one checkpoint of "
            f"TensorFlow 1. Received: source={str(source)!r}, a folder "
            "without, or with several. Name the file."
        )
    if mat_file.is_mat_file(source):
        return "netvlad_mat", None
    if h5py.is_hdf5(source):
        with h5py.File(source) as file:
            if "Utmu" in file:
                raise ValueError(
                    "Expected a file of weights. Received: source="
                    f"{str(source)!r}, a PCA of OpenIBL. Give it as --pca, "
                    "beside the checkpoint as --source."
                )
        return "keras", None
    if torch_file.is_torch_file(source):
        state = torch_layers.tensors(source, torch_file.read(source))
        for name, module in _TORCH.items():
            if module.matches(state):
                return name, state
        raise ValueError(
            f"Expected a network of one of {', '.join(_TORCH)}. Received: "
            f"source={str(source)!r} with {len(state)} tensors, such as "
            f"{', '.join(sorted(state)[:5])}. Other networks are not "
            "supported."
        )
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if "model.weights.h5" in archive.namelist():
                return "keras", None
    raise ValueError(
        "Expected a file that PyTorch, MATLAB, TensorFlow 1 or Keras saved. "
        f"Received: source={str(source)!r}, which is none of them. If it was "
        "downloaded, see whether it is a web page or cut off."
    )
