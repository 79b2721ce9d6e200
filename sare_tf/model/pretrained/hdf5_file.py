"""Arrays of HDF5 files that come from elsewhere.

Such a file may point into other files, and declare arrays without end that
take no room in it. Both are refused.
"""

import h5py
import numpy as np

_MOST_BYTES = 1 << 33


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A member of a group, within the same file.

    Raises:
        ValueError: it is absent, or elsewhere.
    """
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"no {name} in {group.name}")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link")
    return group[name]


def array(dataset: h5py.Group | h5py.Dataset) -> np.ndarray:
    """The numbers of a dataset.

    Raises:
        ValueError: it is none, is stored in another file, or is too large.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{dataset.name} is no array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is stored in another file")
    size = dataset.size * dataset.dtype.itemsize
    if size > _MOST_BYTES:
        raise ValueError(f"{dataset.name} has {size} bytes")
    return dataset[()]
