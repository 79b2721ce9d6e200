"""Fitting PCA whitening beside scikit-learn: time, memory and deviation.

    python -m benchmarks.whitening

The last size is the original code's: 10,000 descriptors of VGG16 and NetVLAD,
whitened to 4,096 numbers. scikit-learn's `PCA(whiten=True)` is given the same
descriptors as float64, in which sare_tf sums, and by its full decomposition;
above --scikit_learn_up_to descriptors it is left out.

Descriptors are random, with variances that fall as those of images do, of unit
length and not centred; they lie in a file, of which sare_tf is given a memory
map. Each row is measured in a process of its own. Peak memory is the largest
resident set while fitting (VmHWM of Linux, set back just before) less the
resident set before, so it holds the pages of the file that were read.

Two deviations are printed. Between the two: the largest difference of an
element of whitened descriptors of unit length, of 100 rows, up to sign. From
the definition: the largest element of the covariance of all samples, whitened
in float64 by the fitted weights in 64 of the dimensions, less the identity.
"""

import concurrent.futures
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

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

_MEBIBYTE = 2**20
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


def measure(name, path, dimension):
    """Fits in this process.

    Returns:
        Seconds; peak bytes; whitened rows [100, d] of unit length; and the
        deviation from the definition.
    """
    descriptors = np.load(path, mmap_mode="r")
    fit = {"sare_tf": _fit, "scikit-learn": _fit_scikit_learn}[name]
    # Starts thread pools and imports what is slow to import.
    fit(np.random.default_rng(0).normal(size=(9, 20)), 2)
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    projection, bias, eigenvalues = fit(descriptors, dimension)
    seconds = time.perf_counter() - start
    peak = _resident_bytes("VmHWM") - before
    rows = np.float64(descriptors[:_COMPARED_ROWS]) @ projection + bias
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = np.linspace(0, dimension - 1, _COMPARED_DIMENSIONS).astype(int)
    some = np.float64(projection[:, chosen])
    whitened = np.concatenate(
        [
            np.float64(descriptors[row : row + _ROWS]) @ some
            for row in range(0, len(descriptors), _ROWS)
        ]
    )
    variances = eigenvalues[chosen] / (eigenvalues[chosen] + 1e-9)
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


def _resident_bytes(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def in_a_process(*arguments):
    """`measure` in a process of its own."""
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        return pool.submit(measure, *arguments).result()


def main(argv):
    del argv
    print("| size | | seconds | peak MiB | from definition | between |")
    print("|---|---|---:|---:|---:|---:|")
    for size in FLAGS.sizes:
        samples, length, dimension = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "descriptors.npy"
            write_descriptors(path, samples, length)
            names = ["sare_tf"]
            if samples <= FLAGS.scikit_learn_up_to:
                names.append("scikit-learn")
            found = {n: in_a_process(n, path, dimension) for n in names}
        ours, *others = [rows for _, _, rows, _ in found.values()]
        between = "-"
        for other in others:
            signs = np.sign((ours * other).sum(axis=0))
            between = f"{np.abs(ours * signs - other).max():.1e}"
        for name, (seconds, peak, _, deviation) in found.items():
            print(
                f"| {samples:,} x {length:,} to {dimension:,} | {name} | "
                f"{seconds:.1f} | {peak / _MEBIBYTE:,.0f} | {deviation:.1e} | "
                f"{between} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
