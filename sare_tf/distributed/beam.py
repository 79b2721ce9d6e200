"""An executor that calls a function on the workers of Apache Beam.

    python -m sare_tf.build_records --flagfile=... --runner=DirectRunner \\
        -- --direct_num_workers=8 --direct_running_mode=multi_processing
    python -m sare_tf.index --flagfile=... --runner=DirectRunner -- ...

Flags after `--` are Beam's own. The extra `beam` installs Beam. Workers need
sare_tf as well, and the folders that a stage reads and writes under the same
paths: a shared or mounted file system. `docs/beam.md` has the commands for
Flink, Spark and Dataflow.

A worker builds a whole shard of records, or embeds a whole part of the index,
by the function that does so without Beam, so the bytes are the same. Beam's own
`WriteToTFRecord` would put images in another order each time. The elements of
the pipeline are names of files that hold the items, because runners limit the
size of a pipeline.
"""

import dataclasses
import functools
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.runtime import atomic_files
from sare_tf.runtime.common_options import RunnerOptions


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """An `Executor` on a runner of Beam.

    Attributes:
        runner: name of the runner, such as "FlinkRunner".
        beam_flags: flags of Beam.
    """

    runner: str
    beam_flags: Sequence[str] = ()

    def map(
        self,
        function: Callable[..., None],
        items: Sequence[Any],
        *,
        folder: Path,
        load: Callable[[], Any] | None = None,
    ) -> None:
        """Calls a function for each item, see `Executor`.

        A `ValueError` or `OSError` of one item is raised after all others are
        done, and that item is not tried again. An item whose worker dies is.

        Raises:
            ImportError: Beam is not installed.
            OSError: an item failed, or the runner did.
        """
        try:
            import apache_beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ModuleNotFoundError as error:
            raise ImportError(
                "Expected Apache Beam to be installed. Received: "
                f'{error}. Run pip install "sare_tf[beam]", or leave --runner '
                "out."
            ) from error
        if not items:
            return
        exchange = folder.resolve() / "beam"
        paths = _write_items(items, exchange)
        options = PipelineOptions([*self.beam_flags, f"--runner={self.runner}"])
        logging.info("Beam's %s does %d tasks.", self.runner, len(items))
        call = functools.partial(_call, function=function)
        if load is None:
            step = apache_beam.Map(call)
        else:
            # These need the extra, too.
            from apache_beam.ml.inference.base import RunInference

            from sare_tf.distributed.beam_model import ItemHandler

            step = RunInference(ItemHandler(load, call))
        try:
            with apache_beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | apache_beam.Create(paths)
                    | apache_beam.Reshuffle()
                    | step
                )
        except Exception as error:
            # Each runner has errors of its own, which begin with a traceback.
            reason = str(error).strip().rpartition("\n")[2]
            raise OSError(
                f"Expected Beam to finish. Received: runner={self.runner!r} "
                f"({type(error).__name__}: {reason}). Check --runner and the "
                "flags after --, and run the command again: what is finished "
                "is kept."
            ) from error
        _check_finished(exchange, len(items))
        shutil.rmtree(exchange)


def from_options(options: RunnerOptions) -> BeamRunner | None:
    """Returns the runner that options name, or None if they name none."""
    if not options.runner:
        return None
    return BeamRunner(options.runner, options.beam_flags)


def _write_items(items: Sequence[Any], exchange: Path) -> list[str]:
    """Writes each item to a file in a new folder, and returns the paths."""
    shutil.rmtree(exchange, ignore_errors=True)
    exchange.mkdir()
    paths = []
    for number, item in enumerate(items):
        path = exchange / f"{number}.item"
        path.write_bytes(pickle.dumps(item))
        paths.append(str(path))
    return paths


def _call(path: str, *model: Any, function: Callable[..., None]) -> None:
    """Calls the function with the item of a file, on a worker."""
    path = Path(path)
    try:
        function(pickle.loads(path.read_bytes()), *model)
    except (OSError, ValueError) as error:
        atomic_files.write_text(path.with_suffix(".failed"), str(error))


def _check_finished(exchange: Path, count: int) -> None:
    failed = sorted(exchange.glob("*.failed"))
    if failed:
        raise OSError(
            f"{failed[0].read_text(encoding='utf-8')} (and {len(failed) - 1} "
            f"other tasks of {count})"
        )
