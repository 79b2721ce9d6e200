"""Compares PCA whitening with scikit-learn: time, memory and deviation.

    python -m benchmarks.whitening

The last size is the original code's: 10,000 descriptors of VGG16 and NetVLAD,
whitened to 4,096 numbers. scikit-learn's `PCA(whiten=True)` takes the same
descriptors as float64, the type in which sare_tf sums, and decomposes them in
full. It is left out above --scikit_learn_up_to descriptors.

Descriptors are random, of unit length and not centred, with variances that fall
as those of images do. They are in a file, and sare_tf takes a memory map of it.
Each row is measured in a process of its own. Peak memory is the largest
resident set while fitting, less the resident set before: it includes the pages
of the file that were read.

The table has two deviations. "between" is the largest difference of an element
of whitened descriptors of unit length, of 100 rows, up to sign. "from
definition" is the largest element of the covariance of all samples less the
identity, whitened in float64 by the fitted weights in 64 of the dimensions.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks import measure
from sare_tf.model import whitening

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "sizes",
    ["1000x4096x512", "2000x8192x1024", "10000x32768x4096"],
    "Samples x length x dimension of each comparison.",
)
flags.DEFINE_integer(
    "scikit_learn_up_to", 2000, "Samples up to which both are run.", 2
)

_ROWS = 500  # written and read at a time
_COMPARED_ROWS = 100
_COMPARED_DIMENSIONS = 64


def write_descriptors(path, samples, length):
    """Writes float32 [samples, length] of unit length to a file."""
    descriptors = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(samples, length)
    )
    rng = np.random.default_rng(0)
    scale = np.arange(1, length + 1, dtype=np.float32) ** -0.6
    mean = scale * rng.standard_normal(length, dtype=np.float32) / 2
    for start in range(0, samples, _ROWS):
        rows = descriptors[start : start + _ROWS]
        rows[:] = scale * rng.standard_normal(rows.shape, dtype=np.float32)
        rows += mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    descriptors.flush()


def measure_fit(name, path, dimension):
    """Fits in this process.

    Returns:
        Seconds, peak bytes, whitened rows [100, d] of unit length, and the
        deviation from the definition.
    """
    descriptors = np.load(path, mmap_mode="r")
    fit = {"sare_tf": _fit, "scikit-learn": _fit_scikit_learn}[name]
    # Starts thread pools, and imports the slow modules.
    fit(np.random.default_rng(0).normal(size=(9, 20)), 2)
    before = measure.resident_bytes()
    measure.reset_peak()
    start = time.perf_counter()
    projection, bias, eigenvalues = fit(descriptors, dimension)
    seconds = time.perf_counter() - start
    peak = measure.peak_bytes() - before
    rows = np.float64(descriptors[:_COMPARED_ROWS]) @ projection + bias
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    compared = np.linspace(0, dimension - 1, _COMPARED_DIMENSIONS).astype(int)
    columns = np.float64(projection[:, compared])
    whitened = np.concatenate(
        [
            np.float64(descriptors[row : row + _ROWS]) @ columns
            for row in range(0, len(descriptors), _ROWS)
        ]
    )
    variances = eigenvalues[compared] / (eigenvalues[compared] + 1e-9)
    deviation = np.abs(np.cov(whitened.T) - np.diag(variances)).max()
    return seconds, peak, rows, deviation


def _fit(descriptors, dimension):
    fitted = whitening.fit(descriptors, dimension)
    return fitted.projection, fitted.bias, fitted.eigenvalues


def _fit_scikit_learn(descriptors, dimension):
    from sklearn.decomposition import PCA

    pca = PCA(dimension, whiten=True, svd_solver="full")
    pca.fit(np.float64(descriptors))
    variances = pca.explained_variance_
    projection = (pca.components_ / np.sqrt(variances + 1e-9)[:, None]).T
    return projection, -(pca.mean_ @ projection), variances


def main(argv):
    del argv
    print("| size | | seconds | peak MiB | from definition | between |")
    print("|---|---|---:|---:|---:|---:|")
    for size in FLAGS.sizes:
        samples, length, dimension = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "descriptors.npy"
            write_descriptors(path, samples, length)
            sides = ["sare_tf"]
            if samples <= FLAGS.scikit_learn_up_to:
                sides.append("scikit-learn")
            results = {
                side: measure.in_a_process(measure_fit, side, path, dimension)
                for side in sides
            }
        ours, *others = [rows for _, _, rows, _ in results.values()]
        between = "-"
        for other in others:
            signs = np.sign((ours * other).sum(axis=0))
            between = f"{np.abs(ours * signs - other).max():.1e}"
        for name, (seconds, peak, _, deviation) in results.items():
            print(
                f"| {samples:,} x {length:,} to {dimension:,} | {name} | "
                f"{seconds:.1f} | {peak / measure.MEBIBYTE:,.0f} | "
                f"{deviation:.1e} | {between} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
