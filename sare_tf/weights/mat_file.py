"""MATLAB's files as plain values: dict, list, str and numpy arrays.

A struct becomes a dict, a cell array a list in MATLAB's order of elements.
Arrays keep MATLAB's axes. Files before 7.3 are read by SciPy, those of 7.3 are
HDF5 with the axes reversed. Objects of MATLAB classes cannot be read without
the classes: they are refused.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sare_tf.model.pretrained import hdf5_file
from sare_tf.runtime import matlab_files

_MOST_BYTES = 1 << 33
_CLASSES = (
    "it holds objects of MATLAB classes, which only MATLAB can read: there, "
    "with the code of NetVLAD on the path, turn each into a struct by "
    "net.layers{i} = struct(net.layers{i}) and save the net again, as "
    "net_class2struct.m of netvlad_tf_open does"
)


def is_mat_file(path: Path) -> bool:
    """Returns whether a file is one of MATLAB's, of version 5 to 7.3."""
    with path.open("rb") as file:
        return file.read(10) in (b"MATLAB 5.0", b"MATLAB 7.3")


def read(path: Path, name: str) -> Any:
    """Reads a variable.

    Raises:
        ValueError: it is absent, damaged, or holds objects of classes.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return _from_hdf5(file, hdf5_file.member(file, name))
        return _read_old(path, name)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a MATLAB file with the variable {name!r}, a struct. "
            f"Received: source={str(path)!r} ({error})."
        ) from error


def _read_old(path: Path, name: str) -> Any:
    variables = matlab_files.load(path, names=[name], struct_as_record=False)
    if name not in variables:
        raise ValueError(f"no variable {name}")
    return _plain(variables[name])


def _plain(value: Any) -> Any:
    """Returns a value of SciPy as a plain value."""
    from scipy.io.matlab import MatlabFunction, MatlabOpaque, mat_struct

    if isinstance(value, (MatlabFunction, MatlabOpaque)):
        raise ValueError(_CLASSES)
    if isinstance(value, mat_struct):
        return {
            field: _plain(getattr(value, field)) for field in value._fieldnames
        }
    if value.dtype.kind == "U":
        return "".join(value.reshape(-1))
    if value.dtype.hasobject:
        elements = value.reshape(-1, order="F")
        if len(elements) == 1 and isinstance(elements[0], mat_struct):
            return _plain(elements[0])
        return [_plain(element) for element in elements]
    return value


def _from_hdf5(file: h5py.File, value: h5py.Group | h5py.Dataset) -> Any:
    if "MATLAB_object_decode" in value.attrs:
        raise ValueError(_CLASSES)
    if isinstance(value, h5py.Group):
        return {
            name: _from_hdf5(file, hdf5_file.member(value, name))
            for name in value
        }
    kind = value.attrs.get("MATLAB_class", b"")
    if "MATLAB_empty" in value.attrs:
        return [] if kind == b"cell" else "" if kind == b"char" else np.zeros(0)
    array = hdf5_file.array(value)
    if kind == b"cell":
        # Row-major here is MATLAB's column-major.
        return [
            _from_hdf5(file, file[reference]) for reference in array.reshape(-1)
        ]
    if kind == b"char":
        return "".join(map(chr, array.reshape(-1)))
    return array.T
