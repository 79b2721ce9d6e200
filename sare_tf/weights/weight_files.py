"""Files of trained weights -> an `ImportedNetwork`: one module per source.

The format is detected from the content of a file, not from its name. A reader
uses every array of the file, or refuses the file. No file is executed,
unpacked, or trusted with its sizes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import h5py

from sare_tf.model.pretrained import (
    array_ledger,
    safetensors_file,
    torch_file,
    weights_file,
)
from sare_tf.model.pretrained.array_ledger import Array
from sare_tf.runtime import atomic_files
from sare_tf.weights import (
    anyloc,
    boq,
    convap,
    cosplace,
    dinov2,
    implicit_aggregation,
    keras_vgg,
    mat_file,
    megaloc,
    mixvpr,
    netvlad_mat,
    netvlad_tf,
    openibl,
    patch_netvlad,
    pytorch_netvlad,
    salad,
    supervlad,
    torchvision,
    vgl_benchmark,
)
from sare_tf.weights.formats import FORMATS
from sare_tf.weights.imported_network import ImportedNetwork

# Arrays by name, which the names tell apart.
_BY_NAME = {
    "openibl": openibl,
    "pytorch_netvlad": pytorch_netvlad,
    "patch_netvlad": patch_netvlad,
    "salad": salad,
    "megaloc": megaloc,
    "boq": boq,
    "mixvpr": mixvpr,
    "convap": convap,
    "cosplace": cosplace,
    "supervlad": supervlad,
    "implicit_aggregation": implicit_aggregation,
    "benchmark": vgl_benchmark,
    "dinov2": dinov2,
    "torchvision": torchvision,
}
_WRITERS = {
    "openibl": openibl.to_saved,
    "pytorch_netvlad": pytorch_netvlad.to_saved,
}


def read(
    source: str | Path,
    *,
    format_name: str = "auto",
    pca: str | Path | None = None,
    vocabulary: str | Path | None = None,
) -> ImportedNetwork:
    """Reads a file of weights.

    Args:
        source: the file; for netvlad_tf its prefix or folder.
        format_name: a name in `FORMATS`, or auto: detected from the content.
        pca: the PCA beside a training of OpenIBL.
        vocabulary: the vocabulary of AnyLoc, beside a backbone of DINOv2.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown format, or a file that does not hold it whole.
    """
    source, pca = Path(source), pca and Path(pca)
    vocabulary = vocabulary and Path(vocabulary)
    if format_name not in ("auto", *FORMATS):
        raise ValueError(
            f"Expected auto, {', '.join(FORMATS)}. Received: "
            f"format_name={format_name!r}."
        )
    for path in (source, pca, vocabulary):
        if path and not path.exists() and not netvlad_tf.prefix(path):
            raise FileNotFoundError(
                "Expected a file of weights. Received: "
                f"{str(path)!r}, which does not exist."
            )
    detected, arrays = _detect(source)
    if detected == "dinov2" and (vocabulary or format_name == "anyloc"):
        detected = "anyloc"
    if format_name == "auto":
        format_name = detected
    # A file of arrays by name may be read as any format of such files.
    same_container = detected in _BY_NAME and format_name in _BY_NAME
    if detected != format_name and not same_container:
        raise ValueError(
            f"Expected a file of the format {format_name}. Received: "
            f"source={str(source)!r}, which is one of {detected}. Leave "
            "--format out."
        )
    _check_beside(format_name, pca=pca, vocabulary=vocabulary)
    network = _read(source, format_name, arrays, pca, vocabulary)
    note = array_ledger.half_precision(arrays or {})
    if note:
        network = dataclasses.replace(network, notes=(*network.notes, note))
    return network


def _read(
    source: Path,
    format_name: str,
    arrays: Mapping[str, Array] | None,
    pca: Path | None,
    vocabulary: Path | None,
) -> ImportedNetwork:
    if format_name == "openibl":
        return openibl.read(source, arrays, pca=pca)
    if format_name == "anyloc":
        return anyloc.read(source, arrays, vocabulary=vocabulary)
    if format_name in _BY_NAME:
        return _BY_NAME[format_name].read(source, arrays)
    if format_name == "netvlad_mat":
        return netvlad_mat.read(source, mat_file.read(source, "net"))
    if format_name == "netvlad_tf":
        return netvlad_tf.read(netvlad_tf.prefix(source))
    return keras_vgg.read(source)


def write(
    path: str | Path, network: ImportedNetwork, *, format_name: str
) -> None:
    """Writes a file that PyTorch loads.

    Args:
        path: the file. If it ends in .safetensors, safetensors with the arrays
            of the state_dict; else the container of `torch.save`.
        network: the network, see `network_building.take_apart`.
        format_name: openibl or pytorch_netvlad.

    Raises:
        ValueError: another format, or a network that has no place in it.
    """
    if format_name not in _WRITERS:
        raise ValueError(
            f"Expected one of {', '.join(_WRITERS)}. Received: "
            f"format_name={format_name!r}."
        )
    saved = _WRITERS[format_name](network)
    with atomic_files.file_in_one_piece(path) as temporary:
        if Path(path).suffix == ".safetensors":
            safetensors_file.write(temporary, saved.get("state_dict", saved))
        else:
            torch_file.write(temporary, saved)


def _check_beside(
    format_name: str, *, pca: Path | None, vocabulary: Path | None
) -> None:
    """Refuses a file beside the weights that does not belong there."""
    if pca and format_name != "openibl":
        raise ValueError(
            "Expected a PCA file only with OpenIBL's trainings. Received: "
            f"pca={str(pca)!r} with format {format_name}. Leave --pca out."
        )
    if vocabulary and format_name != "anyloc":
        raise ValueError(
            "Expected a vocabulary only with a backbone of DINOv2, for AnyLoc. "
            f"Received: vocabulary={str(vocabulary)!r} with format "
            f"{format_name}. Leave --vocabulary out, or give the backbone as "
            "--source."
        )
    if format_name == "anyloc" and not vocabulary:
        raise ValueError(
            "Expected a vocabulary for AnyLoc, which has no other weights than "
            "a backbone. Received: vocabulary=None. Give --vocabulary, a file "
            "*_c_centers.pt."
        )


def _detect(source: Path) -> tuple[str, Mapping[str, Array] | None]:
    """Returns the format of a file, and its arrays if they have names."""
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
    kind = weights_file.kind_of(source)
    if kind in weights_file.ARRAYS_BY_NAME:
        arrays = weights_file.read_arrays(source)
        return _format_of(source, arrays), arrays
    if kind == "hdf5":
        _refuse_pca(source)
    if kind is not None:
        return "keras", None
    raise ValueError(
        "Expected a file that PyTorch, safetensors, NumPy, MATLAB, TensorFlow "
        f"1 or Keras saved. Received: source={str(source)!r}, which is none of "
        "them. If it was downloaded, see whether it is a web page or cut off."
    )


def _format_of(source: Path, arrays: Mapping[str, Array]) -> str:
    for name, module in _BY_NAME.items():
        if module.matches(arrays):
            return name
    raise ValueError(
        f"Expected a network of one of {', '.join(_BY_NAME)}. Received: "
        f"source={str(source)!r} with {len(arrays)} tensors, such as "
        f"{', '.join(sorted(arrays)[:5])}. Other networks are not supported."
    )


def _refuse_pca(source: Path) -> None:
    with h5py.File(source) as file:
        if "Utmu" in file:
            raise ValueError(
                "Expected a file of weights. Received: source="
                f"{str(source)!r}, a PCA of OpenIBL. Give it as --pca, beside "
                "the checkpoint as --source."
            )
