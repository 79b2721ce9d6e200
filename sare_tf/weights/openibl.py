"""OpenIBL: the hub model, checkpoints of trainings, and its first VGG16.

    base_model.base.{0..28}.{weight,bias}   VGG16 up to conv5_3
    net_vlad.{conv.weight,centroids}
    pca_layer.{weight,bias}                 in the hub model

The PCA of a training lies beside its checkpoint, in pca_params_*.h5. The VGG16
that trainings start from, vd16_offtheshelf_conv5_3_max.pth, has only {0..28};
its descriptor is the maximum over locations.

Source: github.com/yxgeee/OpenIBL, ibl/models and ibl/pca.py.
"""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import CAFFE_RGB, ImportedNetwork

# Lower bound of eigenvalues: ibl/pca.py.
_LOWEST_EIGENVALUE = 1e-9
_BACKBONE = torch_layers.vgg16_names("")


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether a state_dict has OpenIBL's names."""
    return (
        any(name.startswith("base_model.base.") for name in state)
        or set(state) == _BACKBONE
    )


def read(
    source: Path, state: Mapping[str, Array], *, pca: Path | None = None
) -> ImportedNetwork:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.
        pca: the PCA beside a training.

    Raises:
        ValueError: an array is missing, left over or of another shape, or the
            PCA does not fit.
    """
    arrays = ArrayLedger(source, state)
    if set(state) == _BACKBONE:
        layers = torch_layers.vgg16(arrays, "")
        return ImportedNetwork(
            source="openibl",
            backbone="vgg16",
            layers=layers,
            preprocessing=CAFFE_RGB,
        )
    layers = torch_layers.vgg16(arrays, "base_model.base.")
    netvlad = torch_layers.netvlad(arrays, "net_vlad.")
    projection = bias = None
    if "pca_layer.weight" in arrays:
        if pca is not None:
            raise ValueError(
                "Expected a PCA once. Received: pca=" + repr(str(pca)) + " "
                f"beside source={str(source)!r}, which holds its own. Leave "
                "--pca out."
            )
        projection, bias = torch_layers.convolved_projection(
            arrays, "pca_layer.", netvlad.centres.size
        )
    elif pca is not None:
        projection, bias = read_pca(pca, netvlad.centres.size)
    arrays.finish()
    notes = ()
    if projection is None:
        notes = (
            "Its PCA lies beside it, in pca_params_*.h5: give it as --pca, or "
            "whiten at export.",
        )
    return ImportedNetwork(
        source="openibl",
        backbone="vgg16",
        layers=layers,
        preprocessing=CAFFE_RGB,
        aggregation=netvlad,
        projection=projection,
        bias=bias,
        notes=notes,
    )


def to_saved(network: ImportedNetwork) -> dict:
    """Returns the state_dict of the hub model, or without PCA of `embednet`.

    Raises:
        ValueError: the assignment has a bias, or the images are preprocessed
            differently.
    """
    torch_layers.check_preprocessing(network, CAFFE_RGB, "OpenIBL")
    if network.aggregation.bias is not None:
        raise ValueError(
            "Expected NetVLAD without a bias of the assignment, for OpenIBL. "
            "Received: use_bias=True. Use --format=pytorch_netvlad."
        )
    state = torch_layers.vgg16_state(network, "base_model.base.")
    state |= torch_layers.netvlad_state(network, "net_vlad.")
    if network.projection is not None:
        state["pca_layer.weight"] = network.projection.T[:, :, None, None]
        state["pca_layer.bias"] = network.bias
    return state


def read_pca(path: Path, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads U [D, d], lams [d], mu [D, 1] and Utmu [d, 1] of a PCA.

    The projection is U diag(1 / sqrt(max(lams, 1e-9))), the bias its product
    with -mu.

    Args:
        path: the HDF5 file.
        length: D.

    Returns:
        [D, d] and [d].

    Raises:
        ValueError: another file, or for another descriptor.
    """
    try:
        with h5py.File(path) as file:
            vectors, variances, product = (
                np.asarray(file[name], np.float64)
                for name in ("U", "lams", "Utmu")
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            "Expected a PCA of OpenIBL: HDF5 with U, lams and Utmu. Received: "
            f"pca={str(path)!r} ({error}). Take pca_params_*.h5 of the "
            "training."
        ) from error
    variances, product = variances.reshape(-1), product.reshape(-1)
    dimension = len(variances)
    if vectors.shape != (length, dimension) or product.shape != (dimension,):
        raise ValueError(
            f"Expected a PCA of descriptors of length {length}: U [D, d], "
            f"lams [d], Utmu [d, 1]. Received: pca={str(path)!r} with shapes "
            f"{vectors.shape}, {variances.shape}, {product.shape}. Take the "
            "one of this training."
        )
    scale = 1 / np.sqrt(np.maximum(variances, _LOWEST_EIGENVALUE))
    return np.float32(vectors * scale), np.float32(-product * scale)
