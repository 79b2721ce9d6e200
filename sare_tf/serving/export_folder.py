"""The folder of an export: which version of it is loaded."""

from pathlib import Path

COMMAND = "python -m sare_tf.export --flagfile=..."


def version_of(export: Path) -> Path:
    """Returns the folder of the version to load: the highest.

    Args:
        export: folder with numbered versions, or of one version.

    Raises:
        FileNotFoundError: no finished export is there.
    """
    if (export / "saved_model.pb").is_file():
        return export
    versions = [
        child
        for child in (export.iterdir() if export.is_dir() else [])
        if child.name.isdigit() and (child / "saved_model.pb").is_file()
    ]
    if not versions:
        raise FileNotFoundError(
            "Expected an export: a folder with numbered versions, each "
            f"holding saved_model.pb. Received: export={str(export)!r}. "
            f"Run {COMMAND} first."
        )
    return max(versions, key=lambda child: int(child.name))
