"""A flagfile for your own photographs, to start from.

    sare-tf init mine
    sare-tf init mine --dataset=photos --reader=exif_photos --size=large

Writes mine/own.flags: where the photographs lie, how they are read, the network
and its training, each with a comment, and the commands to run. --reader names
the layout of the photographs, --size the network:

    small    MobileNetV2 from weights of ImageNet: two CPU cores, minutes
    scratch  from random weights, without a download: two CPU cores, minutes
    large    the paper's, VGG16 from weights of ImageNet: a GPU, hours

Later stages write into the same folder. No photograph is read.
"""

import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from sare_tf import flags
from sare_tf.dataset import readers
from sare_tf.dataset.options import InitOptions
from sare_tf.runtime import (
    atomic_files,
    flagfiles,
    package_files,
    stage_results,
)

# A size -> the flagfile of the package that has its network, and a summary.
_SIZES = {
    "small": (
        "own_photos",
        "MobileNetV2, fine-tuned from weights of ImageNet, which are "
        "downloaded once (14 MB). Two CPU cores, minutes for a few thousand "
        "photographs.",
    ),
    "scratch": (
        "own_photos_from_scratch",
        "A small network, trained from random weights: nothing is downloaded. "
        "Two CPU cores and a few thousand photographs: about 5 minutes.",
    ),
    "large": (
        "own_photos_large",
        "The network and the training of the paper, from weights of ImageNet. "
        "One GPU of 16 GB; hours for some ten thousand photographs (estimated, "
        "not measured).",
    ),
}
# The folder of those flagfiles.
_FOLDER = "runs/own"


def run(options: InitOptions) -> Path:
    """Writes a flagfile.

    Args:
        options: the folder, the photographs and the size of the network.

    Returns:
        The path of the flagfile.

    Raises:
        ValueError: there is such a flagfile already.
    """
    path = Path(options.folder) / "own.flags"
    dataset = Path(options.dataset or Path(options.folder) / "photos")
    if path.exists():
        raise ValueError(
            "Expected a folder without own.flags. Received: "
            f"{options.folder!r}. Choose another folder, or remove the file."
        )
    card = package_files.card_of_reader(options.reader)
    lines = [
        *_header(path, options, card),
        f"--dataset={dataset}",
        f"--reader={options.reader}",
        *_options_of_reader(options),
        *_network(options),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.file_in_one_piece(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = f"Flagfile in {path}. {card} describes the layout of {dataset}"
    text += "." if dataset.is_dir() else ": put your photographs there."
    stage_results.report(
        "init",
        text,
        path=path,
        dataset=dataset,
        card=card,
        next_command=flagfiles.command("check", f"--flagfile={path}"),
    )
    return path


def _header(path: Path, options: InitOptions, card: Path) -> Iterator[str]:
    """Yields comments: what the file is, and its commands."""
    yield from _comment(
        f"Your own photographs, read by {options.reader}, whose layout {card} "
        "describes."
    )
    yield from _comment(_SIZES[options.size][1])
    stages = {stage: "" for stage in ("check", "build_records", "train")}
    stages |= {"export": "", "index": " --split=all", "evaluate": ""}
    for stage, more in stages.items():
        yield f"#   {_command(stage, path)}{more}"
    yield f"#   {_command('locate', path)} PHOTO.jpg"
    yield from _comment(
        "The index holds all places, for locate to search them all; evaluate "
        "asks the queries of the test places."
    )
    yield from _comment(
        "A line is a flag or a comment, and the last value of a flag counts. "
        "sare-tf STAGE --help lists the flags of a stage."
    )


def _options_of_reader(options: InitOptions) -> Iterator[str]:
    """Yields the options of the reader; those with a default as comments."""
    for name in readers.options_of(options.reader):
        field = options.__dataclass_fields__[name]
        value = getattr(options, name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        yield from _comment(field.metadata["help"])
        yield f"{'# ' * (value == field.default)}--{name}={text}"


def _network(options: InitOptions) -> Iterator[str]:
    """Yields folders, network and training of the size, as the package has."""
    template = package_files.flagfile(_SIZES[options.size][0])
    is_in_header = True
    for line in template.read_text(encoding="utf-8").splitlines():
        is_in_header = is_in_header and line.startswith("#")
        if not is_in_header and not line.startswith(("--dataset", "--reader")):
            yield line.replace(f"={_FOLDER}/", f"={Path(options.folder)}/")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        80,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command(stage: str, path: Path) -> str:
    return f"sare-tf {stage} --flagfile={shlex.quote(str(path))}"


def main(argv) -> None:
    if len(argv) != 2:
        raise ValueError(
            f"Expected one folder. Received: {argv[1:]}. Name it after the "
            "command, such as sare-tf init mine."
        )
    run(InitOptions.from_flags(folder=argv[1]))


if __name__ == "__main__":
    flags.start(main, takes_files=True)
