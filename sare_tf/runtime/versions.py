"""Versions of the packages that made a result, for the record beside it."""

import importlib.metadata

import sare_tf


def of(*packages: str) -> dict[str, str | None]:
    """Returns the versions of sare_tf and of packages; None if not installed.

    Args:
        packages: names of installed distributions, such as "tensorflow".
    """
    return {
        "sare_tf": sare_tf.__version__,
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
