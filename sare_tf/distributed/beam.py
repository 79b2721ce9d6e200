"""Work done by Apache Beam, on as many machines as its runner has.

    python -m sare_tf.build_records --flagfile=... --runner=DirectRunner \\
        -- --direct_num_workers=8 --direct_running_mode=multi_processing
    python -m sare_tf.index --flagfile=... --runner=DirectRunner -- ...

What follows `--` are flags of Beam's own. The extra `beam` installs it; the
workers need sare_tf as well, and the folders that a stage reads and writes
under the same paths: a shared or mounted file system. `docs/beam.md` has the
commands for Flink, Spark and Dataflow.

A worker builds a shard of records, or embeds a part of the index, as a whole,
by the function that does so without Beam, so the bytes are the same; Beam's own
`WriteToTFRecord` would put images in another order each time. The elements of
the pipeline are names of files in which tasks lie, as runners limit the size of
a pipeline.
"""

import functools
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf.runtime import atomic_files
from sare_tf.runtime.common_options import RunnerOptions


def for_each(
    function: Callable[..., Any],
    tasks: Sequence[Any],
    *,
    folder: Path,
    runner: str,
    beam_flags: Sequence[str] = (),
    load: Callable[[], Any] | None = None,
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
        load: makes a model, once in each process of a worker; it can be
            pickled. The function is then called with a task and the model.

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
    if not tasks:
        return
    exchange = folder.resolve() / "beam"
    shutil.rmtree(exchange, ignore_errors=True)
    exchange.mkdir()
    names = []
    for number, task in enumerate(tasks):
        path = exchange / f"{number}.task"
        path.write_bytes(pickle.dumps(task))
        names.append(str(path))
    options = PipelineOptions([*beam_flags, f"--runner={runner}"])
    logging.info("%d tasks are done by Beam's %s.", len(tasks), runner)
    run = functools.partial(_run, function=function)
    if load is None:
        step = apache_beam.Map(run)
    else:
        # Of the extra, too.
        from apache_beam.ml.inference.base import RunInference

        from sare_tf.distributed.beam_model import TaskHandler

        step = RunInference(TaskHandler(load, run))
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create(names)
                | apache_beam.Reshuffle()
                | step
            )
    except Exception as error:
        # Of any kind: each runner has its own, with a traceback before.
        reason = str(error).strip().rpartition("\n")[2]
        raise OSError(
            f"Expected Beam to finish. Received: runner={runner!r} "
            f"({type(error).__name__}: {reason}). Check --runner and the flags "
            "after --, and run the command again: what is finished is kept."
        ) from error
    failed = sorted(exchange.glob("*.failed"))
    if failed:
        raise OSError(
            f"{failed[0].read_text(encoding='utf-8')} (and {len(failed) - 1} "
            f"other tasks of {len(tasks)})"
        )
    shutil.rmtree(exchange)


def chosen(options: RunnerOptions) -> Callable[..., None] | None:
    """Returns `for_each` with the runner of options; None without a runner."""
    return options.runner and functools.partial(
        for_each, runner=options.runner, beam_flags=options.beam_flags
    )


def _run(name: str, *model: Any, function: Callable[..., Any]) -> None:
    """Does a task on a worker."""
    path = Path(name)
    try:
        function(pickle.loads(path.read_bytes()), *model)
    except (OSError, ValueError) as error:
        atomic_files.write_text(path.with_suffix(".failed"), str(error))
