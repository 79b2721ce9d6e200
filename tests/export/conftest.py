"""Exports of a toy run, plain and whitened."""

import pytest
from absl import flags
from absl.testing import flagsaver
from toy_export import WHITENED

from sare_tf import export
from sare_tf.training.options import ExportOptions

FLAGS = flags.FLAGS


@pytest.fixture(scope="package")
def root(toy_records, toy_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    (root / "records").symlink_to(toy_records)
    (root / "checkpoints").symlink_to(toy_run.finished)
    export.run(
        ExportOptions(
            checkpoints=root / "checkpoints",
            export=root / "export",
            records=root / "records",
            model_licence="CC-BY-4.0",
        )
    )
    FLAGS.mark_as_parsed()
    with flagsaver.as_parsed(
        checkpoints=str(root / "checkpoints"),
        export=str(root / "whitened"),
        records=str(root / "records"),
        whitening_dimension=str(WHITENED),
        whitening_samples="100",
        batch_size="5",
    ):
        export.main(["export"])
    return root
