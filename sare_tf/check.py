"""A dataset or records/ -> findings/: what would go wrong with them.

    python -m sare_tf.check --flagfile=configs/demo.flags

Checks the dataset where --dataset is there, else the records; --check_of names
one. Every image is read and decoded; what is found is told in plain words:

    check.json     counts, sizes and findings
    check.html     the same with maps and sample places
    images.csv     every image of every finding

The exit code is 1 where a finding is an error: training or evaluation would be
wrong. Of the images, only digests and sizes are kept, and a few for the page.
"""

import csv
import dataclasses
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging
from tqdm import tqdm

import sare_tf
from sare_tf import flags
from sare_tf.checks import finding, positions, splits_and_positives
from sare_tf.checks import image_findings as image_checks
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset import image_decoding, manifest, readers
from sare_tf.evaluation import protocols
from sare_tf.pages import check_page, html
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files

_FILES = {"check.json", "check.html", "images.csv"}
# Records read at a time.
_BLOCK = 64
_DIGEST_BYTES = 16
# Examples of a finding in check.json, and sizes in its table.
_EXAMPLES, _SIZES = 10, 12
# Sample places of each split.
_PLACES = 3


def run(options: CheckOptions) -> Path:
    """Checks a dataset or records.

    Args:
        options: what is checked and by which rules, and the folder of the
            findings, which is replaced if it holds some.

    Returns:
        The path of check.json.

    Raises:
        FileNotFoundError: neither a dataset nor records are there.
        ValueError: they cannot be read at all, or a folder that holds something
            else.
    """
    out = Path(options.findings)
    split = options.split
    atomic_files.check_replaceable(out, names=_FILES)
    if _choose(options.dataset, options.records, options.check_of) == "dataset":
        subject = _Dataset(
            Path(options.dataset),
            is_list_wanted=not options.check_images,
            reader=options.reader,
            split_fractions=options.split_fractions,
            query_fraction=options.query_fraction,
            utm_zone=options.utm_zone,
            seed=options.seed,
        )
    else:
        subject = _Records(options.records)
    table, relations = subject.table, subject.relations
    logging.info("Checking %d images of %s.", len(table), subject.path)
    is_read = options.check_images and not subject.is_list
    contents = (
        _look_at(subject, options.num_workers) if is_read else _unseen(table)
    )
    rules = _rules(
        subject,
        split,
        positives=options.positives,
        radius_m={
            "train": options.train_positive_radius_m,
            "val": options.positive_radius_m,
            "test": options.positive_radius_m,
        },
        train_positives=options.train_positives,
        protocol=options.protocol,
        numbers={
            "radius_m": options.positive_radius_m,
            "frames": options.positive_frames,
            "heading_deg": options.positive_heading_deg,
            "subtask": options.msls_subtask,
        },
    )
    found, answered, samples = [], {}, []
    for name in manifest.SPLITS:
        some, without, shown = splits_and_positives.positives(
            table, name, rules[name], is_used=name in ("train", "val", split)
        )
        found += some
        answered[name] = without
        samples += [(name, *sample) for sample in shown]
    found = [
        *subject.findings(),
        *image_checks.unreadable(table, contents),
        *image_checks.duplicates(
            table,
            contents,
            relations=relations,
            radius_m=options.positive_radius_m,
            by_timestamp={
                name for name, rule in rules.items() if rule.other_timestamp
            },
        ),
        *splits_and_positives.splits(table, evaluated=split),
        *found,
        *splits_and_positives.places(table),
        *positions.overlap(table, radius_m=options.positive_radius_m),
        *positions.zones(table),
        *positions.positions(table),
        *image_checks.sizes(
            table,
            contents,
            height=options.image_height,
            width=options.image_width,
        ),
    ]
    found.sort(key=lambda one: finding.SEVERITIES.index(one.severity))
    summary = {
        "of": subject.kind,
        "path": str(subject.path),
        "ok": not any(one.severity == finding.ERROR for one in found),
        "severities": {
            name: sum(one.severity == name for one in found)
            for name in finding.SEVERITIES
        },
        "counts": _counts(table, answered),
        "images_decoded": len(table) if is_read else 0,
        "sizes": _sizes(contents),
        "findings": [
            {
                **{
                    field.name: getattr(one, field.name)
                    for field in dataclasses.fields(one)
                    if field.name != "images"
                },
                "examples": [list(pair) for pair in one.images[:_EXAMPLES]],
            }
            for one in found
        ],
        "made_from": {
            **subject.made_from,
            "split": split,
            "rules": {name: rule.meaning for name, rule in rules.items()},
        },
        "versions": {
            "sare_tf": sare_tf.__version__,
            "tensorflow": tf.__version__,
        },
    }
    with atomic_files.folder_in_one_piece(out) as folder:
        atomic_files.write_json(folder / "check.json", summary)
        _write_images(folder / "images.csv", found)
        check_page.write(
            folder / "check.html",
            summary=summary,
            table=table,
            regions=positions.regions(table),
            cases=_cases(subject, contents, samples) if is_read else [],
        )
    _tell(out, found, after=subject.after)
    return out / "check.json"


class _Dataset:
    """Raw images, through their reader.

    Attributes:
        kind: "dataset".
        after: the stage to run on it.
        path: its folder.
        table: the manifest.
        relations: of the reading.
        is_list: True where no image is there and the list alone was read.
        made_from: what names it.
    """

    kind = "dataset"
    after = "build_records"

    def __init__(
        self, path: Path, *, reader: str, is_list_wanted: bool, **options
    ):
        self.path = path
        self.made_from = {"reader": reader, **options}
        self.is_list = False
        self._is_list_wanted = is_list_wanted
        try:
            self._reading = readers.read(path, reader=reader, **options)
        except (FileNotFoundError, readers.reading.NoImages) as error:
            if not readers.reads_lists(reader) or not path.is_dir():
                raise
            if not is_list_wanted:
                logging.warning("%s The list alone is checked.", error)
            self._reading = readers.read(
                path, reader=reader, list_only=True, **options
            )
            self.is_list = True
        self.table = self._reading.manifest
        self.relations = self._reading.relations

    def findings(self) -> list[finding.Finding]:
        """What the reader left out, and whether images are there."""
        found = image_checks.refused(self._reading.rejected)
        if not self.is_list:
            return found
        return [
            *found,
            finding.Finding(
                severity=(
                    finding.NOTE if self._is_list_wanted else finding.ERROR
                ),
                name="no_image_there",
                message=f"None of {len(self.table):,} images listed is there: "
                "the list alone was checked.",
                action="Move or link the images to where the list names them; "
                "--nocheck_images checks lists without.",
                count=len(self.table),
            ),
        ]

    def loads(self) -> Iterator[Callable[[], bytes]]:
        """For every row, what gives the bytes of its image."""
        for row in range(len(self.table)):
            yield lambda row=row: self.load(row)

    def load(self, row: int) -> bytes:
        """Bytes of the image of a row.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is part of a file that cannot be decoded, or of
                what lies beyond it.
        """
        source = self._reading.source(self.table["image_id"].iat[row])
        encoded = (self._reading.root / source.path).read_bytes()
        if source.box is None:
            return encoded
        part = image_decoding.cut(image_decoding.pixels(encoded), source.box)
        return tf.io.encode_png(part).numpy()


class _Records:
    """Built records; attributes as of `_Dataset`."""

    kind = "records"
    after = "train"
    is_list = False

    def __init__(self, path: str | Path):
        self._records = Records(path)
        self.path = self._records.path
        self.table = self._records.manifest
        self.relations = self._records.relations
        self.made_from = {"fingerprint": self._records.fingerprint}

    def findings(self) -> list[finding.Finding]:
        """What the builder left out."""
        rejected = self._records.metadata["rejected"]
        if not rejected:
            return []
        return [
            finding.Finding(
                severity=finding.NOTE,
                name="left_out",
                message=f"{finding.count(rejected, 'file')} left out when the "
                "records were built.",
                action=f"See {self.path / 'rejected.csv'}.",
                count=rejected,
            )
        ]

    def loads(self) -> Iterator[Callable[[], bytes]]:
        """For every row, what gives the bytes of its image."""
        for start in range(0, len(self.table), _BLOCK):
            block = self.table.iloc[start : start + _BLOCK]
            try:
                for encoded in list(self._records.read_images(block)):
                    yield lambda encoded=encoded: encoded
            except ValueError:
                # One of them is damaged: each by itself.
                for row in range(start, start + len(block)):
                    yield lambda row=row: self.load(row)

    def load(self, row: int) -> bytes:
        """Bytes of the image of a row.

        Raises:
            ValueError: the record is damaged.
        """
        [encoded] = self._records.read_images(self.table.iloc[[row]])
        return encoded


def _choose(
    dataset: str | Path | None, records: str | Path | None, check_of: str
) -> str:
    given = {"dataset": dataset, "records": records}
    if check_of == "auto":
        there = [
            name
            for name, path in given.items()
            if path is not None and Path(path).is_dir()
        ]
        named = [name for name, path in given.items() if path is not None]
        # One that is absent says so when it is read.
        check_of = (there or named or ["dataset"])[0]
    if given[check_of] is None:
        raise ValueError(
            "Expected --dataset or --records, to check either. Received: no "
            f"--{check_of}. Give it on the command line or in the flagfile."
        )
    return check_of


def _rules(
    subject: _Dataset | _Records,
    evaluated: str,
    *,
    positives: str,
    radius_m: dict[str, float],
    train_positives: str,
    protocol: str,
    numbers: dict[str, Any],
) -> dict[str, splits_and_positives.Rule]:
    """What answers the queries of each split, as training and evaluation say.

    Raises:
        ValueError: no such protocol or rule, or numbers fixed in it.
    """
    relations = subject.relations
    rules = {}
    for split in manifest.SPLITS:
        part = subject.table[subject.table["split"] == split]
        rule = manifest.choose_rule(
            *(part[part["role"] == role] for role in ("query", "database")),
            rule=positives,
            relations=relations,
        )
        if split == evaluated:
            name = rule if protocol == "auto" else protocol
            rules[split] = splits_and_positives.by_protocol(
                protocols.choose(name, **numbers), relations
            )
            continue
        meaning = {
            "radius": f"at most {radius_m[split]:g} m away",
            "place": "of the same place_id",
            "list": "listed",
        }[rule]
        options = dict(manifest.TRAIN_RULES[train_positives])
        if split == "train":
            meaning += f", --train_positives={train_positives}"
        else:
            del options["min_distance_m"]  # Validation has none.
        rules[split] = splits_and_positives.by_manifest(
            meaning,
            rule=rule,
            radius_m=radius_m[split],
            relations=relations,
            **options,
        )
    return rules


def _look_at(
    subject: _Dataset | _Records, num_workers: int
) -> image_checks.Contents:
    """Reads and decodes every image, in threads: what they do most of the
    time leaves the interpreter's lock."""
    count = len(subject.table)
    contents = _unseen(subject.table)
    num_workers = num_workers or os.cpu_count()

    def results(pool: ThreadPoolExecutor) -> Iterator:
        ahead = deque()
        for load in subject.loads():
            ahead.append(pool.submit(_look, load))
            if len(ahead) > 4 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    with ThreadPoolExecutor(num_workers) as pool:
        for row, result in enumerate(
            tqdm(
                results(pool),
                total=count,
                unit="image",
                desc="check",
                leave=False,
            )
        ):
            if isinstance(result, str):
                contents.problems[row] = result
                continue
            digest, size, traits = result
            contents.digests[row] = np.frombuffer(digest, np.uint8)
            contents.sizes[row] = size
            for trait in traits:
                contents.traits[trait].append(row)
    return contents


def _look(
    load: Callable[[], bytes],
) -> tuple[bytes, tuple[int, int], list[str]] | str:
    """Digest, height and width, and traits of an image; or why not."""
    try:
        encoded = load()
        height, width, traits = image_decoding.examine(encoded)
    except OSError as error:
        return f"cannot be read: {error}"
    except ValueError as error:
        return str(error)
    digest = hashlib.sha256(encoded).digest()[:_DIGEST_BYTES]
    return digest, (height, width), traits


def _unseen(table: pd.DataFrame) -> image_checks.Contents:
    """Of images not looked at: no two alike, sizes as the manifest has them."""
    digests = np.zeros((len(table), _DIGEST_BYTES), np.uint8)
    digests[:, :8] = np.arange(len(table))[:, None].view(np.uint8)
    return image_checks.Contents(
        problems={},
        digests=digests,
        sizes=table[["height", "width"]].to_numpy(np.int32).clip(0),
        traits={name: [] for name in image_decoding.TRAITS},
    )


def _counts(table: pd.DataFrame, without: dict[str, int]) -> dict[str, Any]:
    """By split: images of each role, places, and unanswered queries."""
    found = {}
    for split in manifest.SPLITS:
        part = table[table["split"] == split]
        located = np.isfinite(finding.points_of(part)).all(axis=1)
        found[split] = {
            **{
                role: int((part["role"] == role).sum())
                for role in manifest.ROLES
            },
            "places": int(part["place_id"][part["place_id"] != ""].nunique()),
            "with_position": int(located.sum()),
            "queries_without_positive": without[split],
        }
    return found


def _sizes(contents: image_checks.Contents) -> dict[str, Any]:
    """How many sizes there are, and the most frequent, with their counts."""
    known = contents.sizes[(contents.sizes > 0).all(axis=1)]
    sizes, counts = np.unique(known, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SIZES]
    return {
        "different": len(sizes),
        "upright": int((known[:, 0] > known[:, 1]).sum()),
        "lying": int((known[:, 0] < known[:, 1]).sum()),
        "square": int((known[:, 0] == known[:, 1]).sum()),
        "most_frequent": [
            {
                "width": int(sizes[at, 1]),
                "height": int(sizes[at, 0]),
                "count": int(counts[at]),
            }
            for at in order
        ],
    }


def _cases(
    subject: _Dataset | _Records,
    contents: image_checks.Contents,
    samples: Sequence[tuple[str, str, list[str]]],
) -> list[check_page.Case]:
    """Sample places with their pictures: a query and its positives."""
    index = pd.Index(subject.table["image_id"])
    points = finding.points_of(subject.table)
    cases = []
    for split in manifest.SPLITS:
        of_split = [sample[1:] for sample in samples if sample[0] == split]
        for query, database in of_split[:_PLACES]:
            rows = index.get_indexer([query, *database]).tolist()
            rows = [row for row in rows if row not in contents.problems]
            if len(rows) < 2:
                continue
            metres = np.hypot(*(points[rows] - points[rows[0]]).T)
            pictures = [
                html.Picture(
                    encoded=subject.load(row),
                    name=index[row],
                    metres=float(m) if np.isfinite(m) else None,
                )
                for row, m in zip(rows, metres, strict=True)
            ]
            cases.append(check_page.Case(split=split, pictures=pictures))
    return cases


def _write_images(path: Path, found: Sequence[finding.Finding]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("severity", "finding", "image", "detail"))
        for one in found:
            for image, detail in one.images:
                writer.writerow((one.severity, one.name, image, detail))


def _tell(out: Path, found: Sequence[finding.Finding], *, after: str) -> None:
    levels = {
        finding.ERROR: logging.ERROR,
        finding.WARNING: logging.WARNING,
        finding.NOTE: logging.INFO,
    }
    for one in found:
        example = ""
        if one.images:
            example = " The first: {} ({}).".format(*one.images[0])
        logging.log(
            levels[one.severity],
            "%s: %s %s%s",
            one.severity,
            one.message,
            one.action,
            example.replace(" ()", ""),
        )
    errors = sum(one.severity == finding.ERROR for one in found)
    logging.info(
        "%s; look at %s. All images concerned: %s.%s",
        f"{finding.count(errors, 'error')} in "
        + finding.count(len(found), "finding"),
        out / "check.html",
        out / "images.csv",
        "" if errors else f" Next: python -m sare_tf.{after} --flagfile=...",
    )


def main(argv) -> None:
    del argv
    path = run(CheckOptions.from_flags())
    command = "python -m sare_tf.check --flagfile=..."
    if not atomic_files.read_json(path, made_by=command)["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    flags.start(main)
