"""The page of a comparison: one HTML file that needs nothing else."""

from pathlib import Path
from typing import Any

from sare_tf.pages import html
from sare_tf.runtime import atomic_files


def write(path: str | Path, comparison: dict[str, Any]) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        comparison: content of compare.json.
    """
    page = html.environment().get_template("compare.html")
    atomic_files.write_text(path, page.render(comparison))
