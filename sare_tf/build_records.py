"""photographs -> records/: sharded TFRecord files and the manifest.

    python -m sare_tf.build_records --flagfile=sare_tf:demo
    python -m sare_tf.build_records --flagfile=sare_tf:demo --verify
    python -m sare_tf.build_records --records=... --tuple_list=... --tuples=...

See `records.building`. `--verify` reads finished records and compares them with
what was built. `--tuple_list` makes tuple records of them, see
`records.tuple_building`.
"""

from pathlib import Path

from sare_tf import flags
from sare_tf.distributed import beam
from sare_tf.records import building, tuple_building, verification
from sare_tf.records.options import RecordOptions
from sare_tf.runtime import run_lock
from sare_tf.runtime.executors import Executor


@run_lock.one_at_a_time("written")
def run(options: RecordOptions, *, executor: Executor | None = None) -> Path:
    """Builds records, or tuple records, or verifies records.

    Args:
        options: the dataset, or the list of tuples, and what is built; the
            folder is replaced if it holds an earlier result.
        executor: builds shards; None: that of `options.runner`, or this
            machine.

    Returns:
        The folder that was built or verified.

    Raises:
        FileNotFoundError: no such dataset, records or list.
        OSError: the result cannot be written, or the executor failed.
        ValueError: no usable image, damaged records, or a folder that holds
            something else.
    """
    if options.verify:
        return verification.verify(
            options.records, num_workers=options.num_workers
        )
    executor = executor or beam.from_options(options)
    if options.tuple_list is None:
        return building.build(options, executor=executor)
    return tuple_building.build(
        records=options.records,
        tuple_list=options.tuple_list,
        out=options.tuples,
        shard_mebibytes=options.shard_mebibytes,
        seed=options.seed,
        executor=executor,
    )


def main(argv) -> None:
    run(RecordOptions.from_flags(beam_flags=argv[1:]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
