"""The flags of every stage, made from their options.

All stages read the same flagfile, so all flags are defined together, and no two
stages can disagree. Only `main` functions read them. In a flagfile a comment
stands on its own line, and the last value of a flag wins.
"""

import ast
import difflib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from sare_tf.checks.options import CheckOptions
from sare_tf.city.options import CityOptions
from sare_tf.dataset.options import InitOptions
from sare_tf.evaluation.options import ComparisonOptions, EvaluationOptions
from sare_tf.pages.options import LocateOptions
from sare_tf.records.options import (
    DataServiceOptions,
    ExportDatasetOptions,
    RecordOptions,
)
from sare_tf.runtime import console, flagfiles, stage_results
from sare_tf.runtime.common_options import OutputOptions
from sare_tf.runtime.options import define_flags
from sare_tf.runtime.stage_help import describe_flags
from sare_tf.search.options import IndexOptions, VectorOptions
from sare_tf.serving.options import OnnxOptions
from sare_tf.training.options import ExportOptions, TrainingOptions
from sare_tf.weights.options import (
    ExportWeightsOptions,
    ImportOptions,
    LocalExportOptions,
)

# A stage reports its progress; absl's own default is to show only warnings.
flags.FLAGS.set_default("verbosity", logging.INFO)

OPTIONS = {
    "build_records": RecordOptions,
    "check": CheckOptions,
    "compare": ComparisonOptions,
    "data_service": DataServiceOptions,
    "evaluate": EvaluationOptions,
    "export": ExportOptions,
    "export_dataset": ExportDatasetOptions,
    "export_local_features": LocalExportOptions,
    "export_onnx": OnnxOptions,
    "export_vectors": VectorOptions,
    "export_weights": ExportWeightsOptions,
    "import_weights": ImportOptions,
    "index": IndexOptions,
    "init": InitOptions,
    "locate": LocateOptions,
    "synthetic_city": CityOptions,
    "train": TrainingOptions,
}
define_flags([*OPTIONS.values(), OutputOptions])

# Devices of NVIDIA's driver, and of Windows's below Linux.
_GPUS = ("nvidia[0-9]*", "dxg")
_X86 = ("x86_64", "amd64")
_HELP = {"--help", "-help", "--helpshort", "-h", "-?"}


def stage_names() -> list[str]:
    """Returns the names of all stages."""
    return sorted([*OPTIONS, "demo"])


def summary_of(stage: str) -> tuple[str, str]:
    """Returns the first line of a stage's docstring, and the rest of it.

    The stage is not imported.
    """
    path = Path(__file__).parent / f"{stage}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first, _, rest = text.partition("\n")
    return first.rstrip("."), rest.strip("\n")


def help_of(stage: str) -> str:
    """Returns a stage's docstring and the flags that it reads."""
    first, rest = summary_of(stage)
    if stage in OPTIONS:
        described = describe_flags(OPTIONS[stage])
    else:
        described = (
            "It reads the flags of the stages that it runs: see --help of "
            "synthetic_city,\nbuild_records, train, export, index and evaluate."
        )
    return (
        f"{first}.\n\n{rest}\n\n{described}\n\n"
        f"Output:\n{_without_title(describe_flags(OutputOptions))}\n\n"
        "--flagfile=FILE reads flags from a file, one per line.\n"
        "--helpfull shows the flags of all stages and libraries.\n"
    )


def _without_title(described: str) -> str:
    return described.partition("\n")[2]


def before_stage(arguments: Sequence[str]) -> None:
    """Prepares the process of a stage before TensorFlow is imported.

    Hides TensorFlow's notes on the machine, and without a GPU also its error
    that there is none, unless TF_CPP_MIN_LOG_LEVEL is set. Has TensorFlow use
    oneDNN on every x86 CPU, unless TF_ENABLE_ONEDNN_OPTS is set: by itself it
    does so only where the CPU has instructions for neural networks. If the
    arguments ask for help, prints it and ends the process.

    Args:
        arguments: the command line with the interpreter, as in
            `sys.orig_argv`.
    """
    has_gpu = any(any(Path("/dev").glob(name)) for name in _GPUS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_gpu else "3")
    if platform.machine().lower() in _X86:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    modules = {argument.removeprefix("-m") for argument in arguments}
    for stage in stage_names():
        if f"sare_tf.{stage}" in modules and _HELP.intersection(arguments):
            sys.stdout.write(help_of(stage))
            sys.exit(0)


def start(
    main: Callable[[Sequence[str]], None], *, takes_files: bool = False
) -> None:
    """Runs a stage's `main`. Wrong input ends in its message and exit code 1.

    The traceback is shown only with --verbosity=1: these messages are written
    for the person who runs the command.

    Args:
        main: takes the command line without its flags.
        takes_files: whether the command takes files beside its flags.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1 and not takes_files:
            raise app.UsageError(f"Expected only flags. Received: {argv[1:]}.")
        output = OutputOptions.from_flags()
        if output.quiet:
            console.be_quiet()
        writer = stage_results.as_json if output.json else stage_results.as_text
        try:
            with stage_results.written_by(
                stage_results.only_of(_stage_of(main), writer)
            ):
                main(argv)
        except (ImportError, OSError, ValueError) as error:
            logging.debug(traceback.format_exc())
            logging.error("%s", error)
            logging.info("--verbosity=1 shows where this was raised.")
            sys.exit(1)

    console.prepare()
    app.run(guarded, flags_parser=_parse)


def _stage_of(main: Callable) -> str:
    """Returns the name of the stage; its module is __main__ in a command."""
    return Path(sys.modules[main.__module__].__file__).stem


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses flags, and returns the other arguments."""
    try:
        return flags.FLAGS(flagfiles.insert(arguments))
    except flags.UnrecognizedFlagError as error:
        sys.exit(
            "Error: Expected flags of sare_tf. Received: "
            f"--{error.flagname}.{_nearest(error.flagname)} --help lists the "
            "flags of a stage."
        )
    except (flags.Error, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def _nearest(name: str) -> str:
    """Returns a question that names the most similar flag, if there is one."""
    own = [
        flag.name
        for module, of_module in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("sare_tf.")
        for flag in of_module
    ]
    close = difflib.get_close_matches(name, own, n=1)
    return f" Did you mean --{close[0]}?" if close else ""
