"""RandAugment for one image, by Pillow: what torchvision does with it.

Source: torchvision/transforms/autoaugment.py, `_apply_op` and
`RandAugment._augmentation_space`, and functional.py, `affine` and `rotate`,
with num_ops=3, magnitude=9, num_magnitude_bins=31, bilinear, without a fill.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

# The bin of the magnitude, of 0..30.
_BIN = 9
NAMES = [
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
]
_ENHANCERS = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}


def _magnitude(name, width, height):
    """The entry of the operation's 31 magnitudes."""
    ends = {
        "ShearX": (0.0, 0.3),
        "ShearY": (0.0, 0.3),
        "TranslateX": (0.0, 150.0 / 331.0 * width),
        "TranslateY": (0.0, 150.0 / 331.0 * height),
        "Rotate": (0.0, 30.0),
        "Solarize": (255.0, 0.0),
        **dict.fromkeys(_ENHANCERS, (0.0, 0.9)),
    }
    if name == "Posterize":
        return (8 - np.round(np.arange(31) / (30 / 4)))[_BIN]
    return np.linspace(*ends.get(name, (0.0, 0.0)), 31)[_BIN]


def operate(image, name, sign):
    """An operation on an image of Pillow."""
    magnitude = sign * _magnitude(name, *image.size)
    matrices = {
        "ShearX": (1, magnitude, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, magnitude, 1, 0),
        "TranslateX": (1, 0, -int(magnitude), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(magnitude)),
    }
    if name in matrices:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrices[name],
            Image.Resampling.BILINEAR,
        )
    if name == "Rotate":
        return image.rotate(magnitude, Image.Resampling.BILINEAR)
    if name in _ENHANCERS:
        return _ENHANCERS[name](image).enhance(1.0 + magnitude)
    if name == "Posterize":
        return ImageOps.posterize(image, int(abs(magnitude)))
    if name == "Solarize":
        return ImageOps.solarize(image, abs(magnitude))
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    return ImageOps.equalize(image) if name == "Equalize" else image


def apply(image, draws):
    """uint8 [H, W, 3] and six draws -> uint8 [H, W, 3]."""
    image = Image.fromarray(image)
    for choice, sign in draws.reshape(3, 2):
        name = NAMES[int(choice * len(NAMES))]
        image = operate(image, name, -1 if sign < 0.5 else 1)
    return np.asarray(image)
