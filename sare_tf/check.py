"""A dataset or records/ -> findings/: problems before training starts.

    python -m sare_tf.check --flagfile=sare_tf:demo

Checks the dataset if --dataset exists, else the records; --check_of names one.
Every image is read and decoded:

    check.json     counts, sizes and findings
    check.html     the same, with maps and sample places
    images.csv     every image of every finding

The exit code is 1 if a finding is an error: training or evaluation would be
wrong. Memory holds digests and sizes of the images, and a few images for the
page.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sare_tf import flags
from sare_tf.checks import (
    decoding_pass,
    image_contents,
    matching,
    positions,
    rules,
    sources,
    summary,
)
from sare_tf.checks.finding import ERROR, Finding, count
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset.names import SPLITS
from sare_tf.pages import check_page
from sare_tf.runtime import atomic_files, flagfiles, run_lock, stage_results

_FILES = {"check.json", "check.html", "images.csv"}


@run_lock.one_at_a_time("findings")
def run(options: CheckOptions) -> Path:
    """Checks a dataset or records.

    Args:
        options: the dataset or records, the rules of training and evaluation,
            and the folder of the findings, which is replaced if it holds some.

    Returns:
        The path of check.json.

    Raises:
        FileNotFoundError: neither a dataset nor records exist.
        ValueError: they cannot be read at all, or the folder of the findings
            holds something else.
    """
    out = Path(options.findings)
    atomic_files.check_replaceable(out, names=_FILES)
    source = sources.open_source(options)
    table = source.table
    logging.info("Checking %d images of %s.", len(table), source.path)
    matching_rules = matching.rules_of(table, source.relations, options)
    is_decoded = options.check_images and not source.is_list
    if is_decoded:
        images = decoding_pass.decode(source, options.num_workers)
    else:
        images = image_contents.undecoded(table)
    matches = {
        split: matching.match(table, split, matching_rules[split])
        for split in SPLITS
    }
    checked = rules.Checked(
        source=source, images=images, matches=matches, options=options
    )
    findings = rules.apply(checked)
    content = summary.summarise(checked, findings, is_decoded=is_decoded)
    with atomic_files.folder_in_one_piece(out) as folder:
        summary.write(folder, content, findings)
        check_page.write(
            folder / "check.html",
            summary=content,
            table=table,
            regions=positions.regions(table),
            cases=_cases(checked) if is_decoded else [],
        )
    _report(out, content, findings, next_stage=source.next_stage)
    return out / "check.json"


def _cases(checked: rules.Checked) -> list[check_page.Case]:
    return check_page.cases_of(
        {split: some.samples for split, some in checked.matches.items()},
        checked.source.table,
        load=checked.source.load,
        is_readable=checked.images.is_readable,
    )


def _report(
    out: Path,
    content: dict[str, Any],
    findings: Sequence[Finding],
    *,
    next_stage: str,
) -> None:
    lines = []
    for one in findings:
        example = ""
        if one.images:
            example = " The first: {} ({}).".format(*one.images[0])
        example = example.replace(" ()", "")
        lines.append(f"{one.severity}: {one.message} {one.action}{example}")
    errors = content["severities"][ERROR]
    lines.append(
        f"{count(errors, 'error')} in {count(len(findings), 'finding')}; look "
        f"at {out / 'check.html'}. All images concerned: {out / 'images.csv'}."
    )
    stage_results.report(
        "check",
        "\n".join(lines),
        path=out / "check.json",
        page=out / "check.html",
        checked=content["path"],
        **{
            name: content[name]
            for name in ("ok", "severities", "counts", "findings")
        },
        next_command=None if errors else flagfiles.next_command(next_stage),
    )


def main(argv) -> None:
    del argv
    path = run(CheckOptions.from_flags())
    command = "python -m sare_tf.check --flagfile=..."
    if not atomic_files.read_json(path, made_by=command)["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    flags.start(main)
