"""OpenIBL: the hub model, checkpoints of trainings, and its first VGG16.

    base_model.base.{0..28}.{weight,bias}   VGG16 up to conv5_3
    net_vlad.{conv.weight,centroids}
    pca_layer.{weight,bias}                 in the hub model

The PCA of a training lies beside its checkpoint, in pca_params_*.h5. The VGG16
that trainings start from, vd16_offtheshelf_conv5_3_max.pth, has {0..28} alone;
it is followed by the maximum over locations.

Source: github.com/yxgeee/OpenIBL, ibl/models and ibl/pca.py.
"""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from sare_tf.weights import torch_layers
from sare_tf.weights.imported_network import CAFFE_RGB, Found
from sare_tf.weights.torch_file import Tensor

# Lower bound of eigenvalues: ibl/pca.py.
_LOWEST_EIGENVALUE = 1e-9
_BACKBONE = frozenset(
    f"{index}.{part}"
    for index in torch_layers.VGG16_INDICES
    for part in ("weight", "bias")
)


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict is one of OpenIBL's."""
    return (
        any(name.startswith("base_model.base.") for name in state)
        or set(state) == _BACKBONE
    )


def read(
    source: Path, state: Mapping[str, Tensor], *, pca: Path | None = None
) -> Found:
    """Reads a state_dict.

    Args:
        source: the file, for messages.
        state: its tensors.
        pca: file of the PCA of a training.

    Raises:
        ValueError: an array is missing, left over or of another shape; or a
            PCA that does not belong to it.
    """
    arrays = torch_layers.taken(source, state)
    if set(state) == _BACKBONE:
        layers = torch_layers.vgg16(arrays, "")
        return Found(
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
    return Found(
        source="openibl",
        backbone="vgg16",
        layers=layers,
        preprocessing=CAFFE_RGB,
        aggregation=netvlad,
        projection=projection,
        bias=bias,
        notes=notes,
    )


def saved(found: Found) -> dict:
    """A network as the hub model has it, or without PCA as `embednet`.

    Raises:
        ValueError: a bias of the assignment, or images prepared otherwise.
    """
    torch_layers.check_preprocessing(found, CAFFE_RGB, "OpenIBL")
    if found.aggregation.bias is not None:
        raise ValueError(
            "Expected NetVLAD without a bias of the assignment, for OpenIBL. "
            "Received: use_bias=True. Use --format=pytorch_netvlad."
        )
    state = torch_layers.vgg16_state(found, "base_model.base.")
    state |= torch_layers.netvlad_state(found, "net_vlad.")
    if found.projection is not None:
        state["pca_layer.weight"] = found.projection.T[:, :, None, None]
        state["pca_layer.bias"] = found.bias
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
