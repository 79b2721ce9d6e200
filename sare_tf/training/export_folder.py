"""The folder of an export: its versions, each written in one piece.

<n>/saved_model.pb, variables/, ...   the SavedModel
<n>/assets.extra/                     requests for TF Serving to warm up
<n>/sare_tf.json                      what it was made of, and digests
"""

import datetime
from pathlib import Path
from typing import Any

from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.model.local_feature_graph import LocalFeatureGraph
from sare_tf.runtime import atomic_files, file_digests, sealed_json
from sare_tf.serving import warmup_requests


def write_version(
    graph: ExportedGraph | LocalFeatureGraph, path: Path, card: dict[str, Any]
) -> Path:
    """Writes the next version of an export.

    Args:
        graph: the graph to export.
        path: folder of the versions. The new one is the highest plus 1.
        card: what `sare_tf.json` states beside the properties of the graph.

    Returns:
        The folder of the version.
    """
    versions = [
        int(child.name)
        for child in (path.iterdir() if path.is_dir() else [])
        if child.name.isdigit()
    ]
    version = path / str(max(versions, default=0) + 1)
    with atomic_files.folder_in_one_piece(version) as folder:
        fingerprint = graph.write(folder)
        warmup_requests.write(folder, height=graph.height, width=graph.width)
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        sealed_json.write(
            folder / "sare_tf.json",
            {
                "fingerprint": fingerprint,
                "digests": file_digests.of(folder, _files(folder)),
                **graph.card(),
                **card,
                "made": made,
            },
        )
    return version


def _files(folder: Path) -> list[str]:
    """Returns the files that loading a model reads, by path in its folder."""
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    ]
    return sorted(
        name for name in names if not name.startswith("assets.extra/")
    )
