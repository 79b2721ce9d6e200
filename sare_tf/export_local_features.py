"""XFeat's published weights -> <version>/: a SavedModel of local features.

    python -m sare_tf.export_local_features --source=xfeat.pt --out=runs/xfeat
    python -m sare_tf.export_local_features

Encoded images in; keypoints, vectors, scores and which of them are valid out,
a fixed number of each image: `sare_tf.model.local_feature_graph` describes the
signature. TF Serving serves it like an export of descriptors.

Without --out the export lies in the user's cache, where the name xfeat finds
it. Without --source the weights are downloaded from where their authors host
them (Apache-2.0, 6 MB).
"""

from pathlib import Path

from sare_tf import flags
from sare_tf.local_features import extractors
from sare_tf.model import published_files
from sare_tf.model.local_feature_graph import LocalFeatureGraph
from sare_tf.runtime import run_lock, stage_results
from sare_tf.training import export_folder
from sare_tf.weights import xfeat
from sare_tf.weights.options import LocalExportOptions


def run(options: LocalExportOptions) -> Path:
    """Exports XFeat.

    Args:
        options: the file of the weights, the folder of the versions, and how
            many features of an image, at which size.

    Returns:
        The folder of the new version.

    Raises:
        ConnectionError: the weights cannot be downloaded.
        OSError: the file does not exist, or another run writes the folder.
        ValueError: the file holds another network.
    """
    out = Path(options.out or extractors.xfeat_folder())
    with run_lock.only_run(out):
        source = options.source or published_files.get(xfeat.PUBLISHED)
        graph = LocalFeatureGraph(
            network=xfeat.read(Path(source)),
            count=options.local_count,
            longest_side=options.local_side,
        )
        version = export_folder.write_version(
            graph, out, {"licence": "Apache-2.0"}
        )
    stage_results.report(
        "export_local_features",
        f"Exported XFeat, {graph.count} features of an image of up to "
        f"{graph.longest_side} pixels, to {version}.",
        path=version,
        count=graph.count,
        fingerprint=graph.fingerprint,
    )
    return version


def main(argv) -> None:
    del argv
    run(LocalExportOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
