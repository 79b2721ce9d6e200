"""export/<version>/ -> the same network as ONNX, checked with ONNX Runtime.

    python -m sare_tf.export_onnx --export=runs/demo/export \
        --out=runs/demo/onnx

    model.onnx     images, RGB 0..255, float32 [B, H, W, 3] of any one size
                   -> descriptor, float32 [B, D] of unit length
    sare_tf.json   a copy of that of the export

If --out ends in .onnx, it is the model itself, and the copy lies beside it, as
NAME.json.

The model is the signature `embed_tensor`. Decode and resize images as
sare_tf.json says: tf2onnx has no operators for either, so several --scales
cannot be converted. Needs the extra: pip install "sare_tf[onnx]".
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from sare_tf import flags, serving
from sare_tf.runtime import atomic_files, run_lock, stage_results
from sare_tf.serving.options import OnnxOptions

# The newest that tf2onnx 1.17 was made for.
_OPSET = 18
_TOLERANCE = 1e-4  # of a descriptor's values; ours
_NEEDED = ("tf2onnx", "onnxruntime")


@run_lock.one_at_a_time("out")
def run(options: OnnxOptions) -> Path:
    """Converts an export, and compares the descriptors of both.

    Args:
        options: the export, or one of its versions, and the new folder or
            file.

    Returns:
        The path of the model.

    Raises:
        ImportError: the extra `onnx` is not installed.
        FileNotFoundError: there is no such export.
        ValueError: a folder or file that exists, several scales, a graph that
            cannot be converted, or other descriptors after it.
    """
    out = Path(options.out)
    missing = [name for name in _NEEDED if not importlib.util.find_spec(name)]
    if missing:
        raise ImportError(
            f"Expected {' and '.join(_NEEDED)}. Received: no "
            f'{", ".join(missing)}. Run pip install "sare_tf[onnx]".'
        )
    is_file = out.suffix.lower() == ".onnx"
    atomic_files.check_new(out, kind="file" if is_file else "folder")
    servable = serving.load(options.export)
    scales = servable.metadata["scales"]
    if scales != [1]:
        raise ValueError(
            "Expected an export of one scale: tf2onnx cannot convert the "
            f"resizing for others. Received: export={str(servable.path)!r} "
            f"with scales={scales}. Export again with --scales=1."
        )
    written = out.with_name(f".{out.name}.folder") if is_file else out
    with atomic_files.folder_in_one_piece(written) as folder:
        _convert(servable.path, folder / "model.onnx")
        difference = compare(servable, folder / "model.onnx")
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"Expected descriptors that differ by {_TOLERANCE} at most. "
                f"Received: {difference:.3g} between export="
                f"{str(servable.path)!r} and its ONNX. Serve the export "
                "itself."
            )
        shutil.copy(servable.path / "sare_tf.json", folder)
    path = out / "model.onnx"
    if is_file:
        atomic_files.replace(written / "sare_tf.json", out.with_suffix(".json"))
        path = out
        atomic_files.replace(written / "model.onnx", path)
        shutil.rmtree(written)
    stage_results.report(
        "export_onnx",
        f"ONNX of {servable.path} in {path}; descriptors differ by "
        f"{difference:.2g} at most.",
        path=path,
        export=servable.path,
        difference=difference,
    )
    return path


def compare(servable: serving.Servable, path: Path) -> float:
    """Returns the largest difference of descriptors of an export and its ONNX.

    Both embed two batches of noise: of the size that the export was made for,
    and of another.

    Args:
        servable: the export.
        path: the ONNX model.
    """
    # Installed by the extra only.
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    model = tf.saved_model.load(str(servable.path))
    signature = model.signatures["embed_tensor"]
    height = servable.metadata["image_height"]
    width = servable.metadata["image_width"]
    rng = np.random.default_rng(0)
    differences = []
    for shape in ((2, height, width, 3), (1, height + 9, width + 7, 3)):
        pixels = rng.integers(0, 256, shape).astype(np.float32)
        expected = signature(images=tf.constant(pixels))["descriptor"].numpy()
        (descriptors,) = session.run(["descriptor"], {"images": pixels})
        differences.append(np.abs(descriptors - expected).max())
    return float(max(differences))


def _convert(export: Path, path: Path) -> None:
    # The way that tf2onnx documents for a SavedModel is its command line.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tf2onnx.convert"),
            *("--saved-model", str(export)),
            *("--signature_def", "embed_tensor", "--tag", "serve"),
            *("--opset", str(_OPSET), "--output", str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not path.is_file():
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ValueError(
            "Expected a graph that tf2onnx converts. Received: "
            f"export={str(export)!r} ({lines[-1]}). Serve the export itself."
        )


def main(argv) -> None:
    del argv
    run(OnnxOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
