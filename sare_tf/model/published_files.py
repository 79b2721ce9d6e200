"""Published files of weights: their addresses and digests.

`locate --weights` takes the names of backbones, and those of the files. The
authors of torchvision write the first eight hex digits of a file's SHA-256 into
its name. Those of DINOv2 publish none; these are as github.com/finegrain-ai/
refiners has them (scripts/conversion), for four of them as many others do.
"""

import dataclasses
import re
from pathlib import Path

from sare_tf.runtime import download, user_cache

_TORCHVISION = "https://download.pytorch.org/models"
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2"

# Backbone -> file. Of two, torchvision's IMAGENET1K_V1, which the networks of
# this field start from.
_TORCHVISION_FILES = {
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "convnext_tiny": "convnext_tiny-983f1562.pth",
    "torchvision_vgg16": "vgg16-397923af.pth",
    "torchvision_resnet18": "resnet18-f37072fd.pth",
    "torchvision_resnet34": "resnet34-b627a593.pth",
    "torchvision_resnet50": "resnet50-0676ba61.pth",
    "torchvision_resnet101": "resnet101-63fe2227.pth",
    "torchvision_resnet152": "resnet152-394f9c45.pth",
}
# IMAGENET1K_V2, which go by the names of their files.
_OTHER_FILES = (
    "mobilenet_v2-7ebf99e0.pth",
    "mobilenet_v3_large-5c1a4163.pth",
    "resnet50-11ad3fa6.pth",
    "resnet101-cd907fc2.pth",
    "resnet152-f82ba261.pth",
)
_DINOV2_DIGESTS = {
    "dinov2_vits14": "b938bf1bc15cd2ec0feacfe3a1bb553f"
    "e8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2_vits14_reg": "f433177089a681826f849f194ece3bb4"
    "8f4d63fb38d32fc837e3dc7a4e5641fb",
    "dinov2_vitb14": "0b8b82f85de91b424aded121c7e1dcc2"
    "b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2_vitb14_reg": "73182a088cf94833c94b1666d1c99e02"
    "fe87e2007bff57b564fb6206e25dba71",
    "dinov2_vitl14": "d5383ea8f4877b2472eb973e0fd72d55"
    "7c7da5d3611bd527ceeb1d7162cbf428",
    "dinov2_vitl14_reg": "36e4deffbaef061a2576705b0c36f936"
    "21e2ae20bf6274694821b0b492551b51",
    "dinov2_vitg14": "baf8467e50af277596bbbafa06887c17"
    "7ee899ab46033649c383577d7e9309d3",
    "dinov2_vitg14_reg": "746ecb8c6301c645c5c855be91687d27"
    "4587d6e48fdaec4a729753160b34a283",
}


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that its authors host.

    Attributes:
        url: its address.
        sha256: its digest in hex, or the beginning of it.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]


def _of_torchvision(name: str) -> PublishedFile:
    (digest,) = re.findall(r"-([0-9a-f]{8})\.pth$", name)
    return PublishedFile(f"{_TORCHVISION}/{name}", digest)


def _of_dinov2(name: str, digest: str) -> PublishedFile:
    size = name.removesuffix("_reg")
    file = f"{size}_reg4_pretrain" if name != size else f"{size}_pretrain"
    return PublishedFile(f"{_DINOV2}/{size}/{file}.pth", digest)


# By the name of the backbone.
PUBLISHED: dict[str, PublishedFile] = {
    **{
        name: _of_torchvision(file) for name, file in _TORCHVISION_FILES.items()
    },
    **{
        name: _of_dinov2(name, digest)
        for name, digest in _DINOV2_DIGESTS.items()
    },
}
_BY_FILE_NAME = {
    published.name: published
    for published in (*PUBLISHED.values(), *map(_of_torchvision, _OTHER_FILES))
}


def find(name: str) -> PublishedFile | None:
    """Returns the file of a backbone, or of its own name; None if unknown."""
    return PUBLISHED.get(name) or _BY_FILE_NAME.get(name)


def get(published: PublishedFile, *, folder: str | Path | None = None) -> Path:
    """Returns a file on this machine, which is downloaded if it is not there.

    Args:
        published: the file.
        folder: where files are kept; None: `weights` in the user's cache.

    Raises:
        ConnectionError, OSError, ValueError: as `download.fetch`.
    """
    folder = user_cache.folder() / "weights" if folder is None else Path(folder)
    return download.fetch(
        published.url, folder / published.name, sha256=published.sha256
    )
