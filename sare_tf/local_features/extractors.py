"""The extractors of local features by name."""

from pathlib import Path

from sare_tf.local_features import matching
from sare_tf.local_features.features import Extractor
from sare_tf.local_features.registry import ROOT_SIFT, TOLERANCES, XFEAT
from sare_tf.local_features.verification import Geometry
from sare_tf.runtime import user_cache

_RULES = {
    ROOT_SIFT: matching.RULE_OF_ROOT_SIFT,
    XFEAT: matching.RULE_OF_XFEAT,
}


def xfeat_folder() -> Path:
    """Returns where the export lies that the name xfeat stands for."""
    return user_cache.folder() / "local_features" / XFEAT


def load(name: str, *, count: int, longest_side: int) -> Extractor:
    """Loads an extractor.

    Args:
        name: "rootsift"; "xfeat", for its export in the user's cache; or the
            folder of an export of local features.
        count: features of an image, for RootSIFT. An export has its own.
        longest_side: larger images are reduced to this many pixels; as above.

    Raises:
        FileNotFoundError: no export is there.
        ImportError: OpenCV is not installed.
        ValueError: the export is damaged, or of descriptors.
    """
    if name == ROOT_SIFT:
        from sare_tf.local_features.root_sift import RootSIFT

        return RootSIFT(count=count, longest_side=longest_side)
    from sare_tf.local_features.exported_features import ExportedFeatures

    return ExportedFeatures(xfeat_folder() if name == XFEAT else name)


def geometry_of(extractor: Extractor, name: str) -> Geometry:
    """Returns how matches of an extractor's features are verified.

    Args:
        extractor: the extractor.
        name: one of `registry.GEOMETRIES`.
    """
    return Geometry(
        matching=_RULES[extractor.name],
        geometry=name,
        tolerance=TOLERANCES[name],
    )
