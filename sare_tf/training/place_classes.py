"""Classes of places on a grid, and groups of classes that are far apart.

Coordinates count within a grid of UTM zones. M is the side of a cell in metres,
N how many cells lie from one class of a group to the next, alpha the sector of
headings in degrees, and L how many sectors lie from one to the next.

- CosPlace: a class is a cell and a sector, (floor(east / M), floor(north / M),
  floor(heading / alpha)); its group is these numbers modulo N, N and L. Source:
  Berton et al., "Rethinking Visual Geo-localization for Large-Scale
  Applications", CVPR 2022, section 3.2.
- EigenPlaces: a class is a cell. Its group is (floor(east / M), floor(north /
  M)) modulo N. All of its images look at a focal point, at a distance from the
  mean of their positions: across the first principal axis of the positions in a
  lateral class, along it in a frontal one. Source: Berton et al., "EigenPlaces:
  Training Viewpoint Robust Models for Visual Place Recognition", ICCV 2023,
  section 3. There, views are cut out of panoramas; here, of the images at one
  position the one is taken that is turned the least from the focal point.
"""

import dataclasses

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset import manifest

# EigenPlaces' distance of the focal point.
_FOCAL_M = 10.0
# Names in a message.
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes of images, numbered so that those of a group are consecutive.

    Attributes:
        numbers: int64 [N], numbers of the images' classes; -1: of none.
        group_sizes: number of classes of each group.
    """

    numbers: np.ndarray
    group_sizes: tuple[int, ...]

    def group(self, number: int) -> np.ndarray:
        """Returns the classes of a group; groups come in turn."""
        number %= len(self.group_sizes)
        first = sum(self.group_sizes[:number])
        return np.arange(first, first + self.group_sizes[number])


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of the classes, see the module.

    Attributes:
        size_m: M.
        spacing: N.
        images: images that a class has at least.
        heading_deg: alpha; for EigenPlaces, twice the angle by which an image
            may be turned from the focal point.
        heading_spacing: L.
        groups: groups that are used; 0: all.
        group_classes: classes that a group has at least; smaller groups are
            left out.
    """

    size_m: float
    spacing: int
    images: int
    heading_deg: float = 30.0
    heading_spacing: int = 2
    groups: int = 0
    group_classes: int = 2


def cosplace(rows: pd.DataFrame, grid: Grid) -> Classes:
    """Makes the classes of CosPlace.

    Args:
        rows: N rows of a manifest.
        grid: of the classes.

    Raises:
        ValueError: images without a position or a heading, or no group with
            enough classes.
    """
    _check(rows)
    cells = _cells(rows, grid)
    heading = rows["heading_deg"].to_numpy(np.float64) % 360.0
    cells["heading"] = np.floor(heading / grid.heading_deg).astype(np.int64)
    return _grouped(
        rows,
        cells,
        {
            "east": grid.spacing,
            "north": grid.spacing,
            "heading": grid.heading_spacing,
        },
        grid,
        np.ones(len(rows), bool),
    )


def eigenplaces(rows: pd.DataFrame, grid: Grid, *, lateral: bool) -> Classes:
    """Makes the lateral or the frontal classes of EigenPlaces.

    Args:
        rows: N rows of a manifest.
        grid: of the classes.
        lateral: whether the images look across the street, not along it.

    Raises:
        ValueError: images without a position or a heading, or no group with
            enough classes.
    """
    _check(rows)
    cells = _cells(rows, grid)
    xy = manifest.coordinates(rows)
    positions = _positions(rows)
    heading = rows["heading_deg"].to_numpy(np.float64)
    used = np.zeros(len(rows), bool)
    by_cell = cells.groupby(list(cells.columns), sort=False).indices
    for images in by_cell.values():
        # One position of each panorama.
        _, first = np.unique(positions[images], return_index=True)
        if len(first) < 2:
            continue
        focus = focal_point(xy[images][np.sort(first)], lateral=lateral)
        east, north = (focus - xy[images]).T
        turn = np.degrees(np.arctan2(east, north)) - heading[images]
        turn = np.abs((turn + 180.0) % 360.0 - 180.0)
        # Of each position, the first image that is turned the least.
        order = np.lexsort((np.arange(len(images)), turn, positions[images]))
        _, least = np.unique(positions[images][order], return_index=True)
        least = order[least]
        used[images[least[turn[least] <= grid.heading_deg / 2]]] = True
    return _grouped(
        rows,
        cells,
        {"east": grid.spacing, "north": grid.spacing},
        grid,
        used,
    )


def focal_point(xy: np.ndarray, *, lateral: bool) -> np.ndarray:
    """Returns the point that the images of a class of EigenPlaces look at.

    The principal axis is directed east, or north if it is north to south. The
    lateral point lies to the left of it.

    Args:
        xy: positions, metres east and north, float64 [n, 2].
        lateral: whether the point lies across the first principal axis of the
            positions, not along it.

    Returns:
        float64 [2].
    """
    mean = xy.mean(axis=0)
    _, axes = np.linalg.eigh((xy - mean).T @ (xy - mean))
    axis = axes[:, 1]
    if axis[0] < 0 or (axis[0] == 0 and axis[1] < 0):
        axis = -axis
    if lateral:
        axis = np.array([-axis[1], axis[0]])
    return mean + _FOCAL_M * axis


def _check(rows: pd.DataFrame) -> None:
    unknown = {
        "position": ~np.isfinite(manifest.coordinates(rows)).all(axis=1),
        "heading": rows["heading_deg"].isna().to_numpy(),
    }
    for what, missing in unknown.items():
        if missing.any():
            raise ValueError(
                f"Expected a {what} of every image, for classes on a grid. "
                f"Received: {missing.sum()} of {len(rows)} images without, "
                f"such as {rows['image_id'][missing].iloc[0]!r}. Choose "
                "another --sampler."
            )


def _cells(rows: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Returns the zone and the cell of each image."""
    cells = np.floor(manifest.coordinates(rows) / grid.size_m).astype(np.int64)
    return pd.DataFrame(
        {
            "zone": manifest.grids(rows),
            "east": cells[:, 0],
            "north": cells[:, 1],
        }
    )


def _positions(rows: pd.DataFrame) -> np.ndarray:
    """Numbers where images were taken: by panorama, or else by coordinates."""
    keys = pd.DataFrame(manifest.coordinates(rows), columns=["east", "north"])
    keys["panorama"] = rows["panorama_id"].to_numpy()
    known = keys["panorama"] != ""
    keys.loc[known, ["east", "north"]] = 0.0
    return keys.groupby(list(keys.columns)).ngroup().to_numpy()


def _grouped(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    spacings: dict[str, int],
    grid: Grid,
    used: np.ndarray,
) -> Classes:
    """Numbers the classes of images by group, and leaves small ones out."""
    keys = list(cells.columns)
    cells = cells.assign(image=np.arange(len(rows)), used=used)
    table = cells.groupby(keys, as_index=False).agg(
        images=("used", "sum"), first=("image", "first")
    )
    names = [f"group_{name}" for name in spacings]
    for name, spacing in spacings.items():
        table[f"group_{name}"] = table[name] % spacing
    is_large = table["images"] >= grid.images
    _warn("classes with fewer images", grid.images, rows, table[~is_large])
    table = table[is_large].sort_values([*names, *keys])
    table["group"] = table.groupby(names).ngroup()
    counts = table["group"].value_counts().sort_index()
    kept = [
        group for group, count in counts.items() if count >= grid.group_classes
    ]
    if not kept:
        raise ValueError(
            f"Expected a group with {grid.group_classes} classes of "
            f"{grid.images} images. Received: {len(table)} such classes in "
            f"{len(counts)} groups, of {len(is_large)} cells with an image. "
            "Lower --class_images, --class_spacing or --places_per_batch, or "
            "raise --class_size_m."
        )
    is_kept = table["group"].isin(kept)
    _warn(
        "classes in groups of fewer", grid.group_classes, rows, table[~is_kept]
    )
    kept = kept[: grid.groups or None]
    table = table[table["group"].isin(kept)]
    table["number"] = np.arange(len(table))
    numbers = cells.merge(table[[*keys, "number"]], how="left", on=keys)
    numbers = numbers["number"].fillna(-1).to_numpy(np.int64)
    numbers = np.where(used, numbers, -1)
    sizes = tuple(int(counts[group]) for group in kept)
    return Classes(numbers, sizes)


def _warn(
    what: str, least: int, rows: pd.DataFrame, left: pd.DataFrame
) -> None:
    if len(left):
        names = rows["image_id"].iloc[left["first"][:_SHOWN]].tolist()
        logging.warning(
            "Left out: %d %s than %d, such as that of %s.",
            len(left),
            what,
            least,
            ", ".join(names),
        )
