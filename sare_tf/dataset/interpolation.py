"""How images get another size."""

import dataclasses

KINDS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation:
    """An interpolation of pixels, with antialiasing.

    Attributes:
        kind: "bilinear"; or "bicubic", Keys's kernel with the coefficient -0.5,
            as PIL and PyTorch have it with antialiasing.
        rounded: results are rounded to whole numbers of 0..255, as those of
            PIL. Else they are float32, as those of PyTorch's tensors; bicubic
            ones may lie outside of 0..255.

    Raises:
        ValueError: another kind.
    """

    kind: str = "bilinear"
    rounded: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"Expected interpolation to be one of {', '.join(KINDS)}. "
                f"Received: interpolation={self.kind!r}."
            )

    def __str__(self):
        rounded = "" if self.rounded else ", not rounded to whole numbers"
        return f"antialiased {self.kind}{rounded}"


BILINEAR = Interpolation()
