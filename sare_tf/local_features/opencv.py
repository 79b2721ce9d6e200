"""OpenCV, which finds SIFT features and estimates geometry.

It is an extra, so it is imported where it is first used.
"""

import types


def load() -> types.ModuleType:
    """Imports OpenCV.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Expected OpenCV for local features and their geometry. Received: "
            f"{error}. Run pip install 'sare_tf[rerank]'."
        ) from error
    return cv2
