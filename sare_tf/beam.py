"""Shards built by Apache Beam, on as many machines as its runner has.

    python -m sare_tf.build_records --flagfile=... --runner=DirectRunner \\
        -- --direct_num_workers=8 --direct_running_mode=multi_processing

What follows `--` are flags of Beam's own. The extra `beam` installs it; the
workers need sare_tf as well, and the folders of the dataset and of the records
under the same paths: a shared or mounted file system. `docs/beam.md` has the
commands for Flink, Spark and Dataflow.

A worker builds a shard as a whole, by the function that builds it without
Beam, so the bytes are the same; Beam's own `WriteToTFRecord` would put images
in another order each time. The elements of the pipeline are names of files in
which tasks lie, as runners limit the size of a pipeline.
"""

import functools
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf import files, record_shards
from sare_tf.record_plan import Preparation, Shard


def for_each(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    folder: Path,
    runner: str,
    beam_flags: Sequence[str] = (),
) -> None:
    """Calls a function with each task, on the workers of a runner.

    An error of one task leaves the others alone. It is not tried again, as one
    of which the worker dies is.

    Args:
        function: what to call, for its effect; it can be pickled.
        tasks: its arguments, which can be pickled.
        folder: of files that are passed to workers and back; it exists.
        runner: name of a runner of Beam, such as "FlinkRunner".
        beam_flags: flags of Beam.

    Raises:
        ImportError: Beam is not installed.
        OSError: a task failed, or the runner did.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError as error:
        raise ImportError(
            "Expected Apache Beam to be installed. Received: "
            f'{error}. Run pip install "sare_tf[beam]", or leave --runner out.'
        ) from error
    exchange = folder.resolve() / "beam"
    shutil.rmtree(exchange, ignore_errors=True)
    exchange.mkdir()
    names = []
    for number, task in enumerate(tasks):
        path = exchange / f"{number}.task"
        path.write_bytes(pickle.dumps(task))
        names.append(str(path))
    options = PipelineOptions([*beam_flags, f"--runner={runner}"])
    logging.info("%d shards are built by Beam's %s.", len(tasks), runner)
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create(names)
                | apache_beam.Reshuffle()
                | apache_beam.Map(_run, function)
            )
    except Exception as error:
        # Of any kind: each runner has its own, with a traceback before.
        reason = str(error).strip().rpartition("\n")[2]
        raise OSError(
            f"Expected Beam to finish. Received: runner={runner!r} "
            f"({type(error).__name__}: {reason}). Check --runner and the flags "
            "after --, and run the command again: finished shards are kept."
        ) from error
    failed = sorted(exchange.glob("*.failed"))
    if failed:
        raise OSError(
            f"{failed[0].read_text(encoding='utf-8')} (and {len(failed) - 1} "
            f"other shards of {len(tasks)})"
        )
    shutil.rmtree(exchange)


def engine(
    shards: Sequence[Shard],
    *,
    root: Path,
    folder: Path,
    preparation: Preparation,
    runner: str,
    beam_flags: Sequence[str] = (),
) -> None:
    """Builds shards of records: an `engine` of `build_records.run`.

    Args:
        shards: the plan.
        root: folder that its sources are relative to.
        folder: where its files go; it exists.
        preparation: as the shards were planned with.
        runner: as of `for_each`.
        beam_flags: as of `for_each`.

    Raises:
        ImportError: see `for_each`.
        OSError: see `for_each`.
    """
    build = functools.partial(
        record_shards.build,
        root=root.resolve(),
        folder=folder.resolve(),
        preparation=preparation,
    )
    for_each(build, shards, folder=folder, runner=runner, beam_flags=beam_flags)


def _run(name: str, function: Callable[[Any], Any]) -> None:
    """Runs a task on a worker."""
    path = Path(name)
    try:
        function(pickle.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        files.write_text(path.with_suffix(".failed"), str(error))
