"""What is not exported, and what is not taken for an export."""

import shutil

import pytest
import tensorflow as tf
import toy_damage
import toy_training
from absl.testing import flagsaver
from toy_export import damaged

from sare_tf import export, serving
from sare_tf.records.records import Records
from sare_tf.training import export_folder
from sare_tf.training.options import ExportOptions


def test_half_an_export_is_not_taken_for_whole(root, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(export_folder.sealed_json, "write", fail)
    with pytest.raises(OSError, match="No space"):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints", export=tmp_path / "export"
            )
        )
    with pytest.raises(FileNotFoundError, match="Expected an export"):
        serving.load(tmp_path / "export")


def test_an_epoch_that_is_not_there(root):
    with pytest.raises(FileNotFoundError, match="Received: epoch='epoch-0077'"):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=root / "other",
                epoch="epoch-0077",
            )
        )


def test_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sare_tf.train .* first"):
        export.run(
            ExportOptions(checkpoints=tmp_path, export=tmp_path / "export")
        )


def test_other_records_are_refused_unless_allowed(root, tmp_path):
    other = toy_training.records(tmp_path, places=3)
    options = {
        "checkpoints": root / "checkpoints",
        "export": tmp_path / "export",
        "records": other,
        "whitening_dimension": 2,
    }
    with pytest.raises(ValueError, match="trained on, with fingerprint"):
        export.run(ExportOptions(**options))
    version = export.run(ExportOptions(**options, allow_other_records=True))
    metadata = serving.load(version).metadata
    fingerprint = Records(other).fingerprint
    assert metadata["whitening"]["records_fingerprint"] == fingerprint
    assert metadata["training_images"] is None


def test_records_damaged_since_are_refused(root, tmp_path, monkeypatch):
    # With good checksums: another image than the builder checked.
    good = Records.read_images
    bad = [b"text", *damaged()]

    def read(records, rows):
        return [*list(good(records, rows))[:6], *bad]

    monkeypatch.setattr(Records, "read_images", lambda *a: iter(read(*a)))
    rows = Records(root / "records").rows("train", "database")
    with pytest.raises(ValueError, match="decoded. Received: ") as caught:
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                records=root / "records",
                whitening_dimension=2,
                batch_size=5,
            )
        )
    assert rows["image_id"].iloc[6] in str(caught.value)


@pytest.mark.parametrize("scales", [(), (1, 0), (1, -1), (float("inf"),)])
def test_scales_that_are_not_positive(root, tmp_path, scales):
    with pytest.raises(ValueError, match="at least one scale.*scales="):
        export.run(
            ExportOptions(
                checkpoints=root / "checkpoints",
                export=tmp_path / "export",
                scales=scales,
            )
        )


def test_an_export_with_other_outputs_is_refused(root, tmp_path):
    class Older(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(self, image_bytes):
            return {"descriptor": tf.strings.length(image_bytes)}

    module = Older()
    tf.saved_model.save(
        module, str(tmp_path), signatures={"serving_default": module.serve}
    )
    shutil.copy(root / "export" / "1" / "sare_tf.json", tmp_path)
    with pytest.raises(ValueError, match="Expected a whole export"):
        serving.load(tmp_path)
    toy_damage.forget_digests(tmp_path / "sare_tf.json")
    with pytest.raises(
        ValueError, match="fingerprint, valid. Received: .*desc"
    ):
        serving.load(tmp_path)


def test_scales_that_are_no_numbers(root):
    with (
        flagsaver.as_parsed(
            checkpoints=str(root / "checkpoints"),
            export=str(root / "other"),
            scales="1,half",
        ),
        pytest.raises(ValueError, match="numbers. Received: --scales=1,half"),
    ):
        export.main(["export"])


def test_flags_of_another_network_are_refused(root):
    with (
        flagsaver.as_parsed(
            checkpoints=str(root / "checkpoints"),
            export=str(root / "another"),
            num_clusters="64",
        ),
        pytest.raises(ValueError, match="--num_clusters=64 but .* has 4"),
    ):
        export.main(["export"])
