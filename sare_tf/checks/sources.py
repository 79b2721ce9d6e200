"""Sources of a check, as rows and bytes: a dataset, or records."""

from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf
from absl import logging

from sare_tf.checks import image_findings
from sare_tf.checks.finding import ERROR, NOTE, WARNING, Finding, count
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset import heif, image_decoding, readers
from sare_tf.dataset.readers.collector import NoImages
from sare_tf.records.records import COMMAND, Records

# Records read at a time.
_BLOCK = 64


class DatasetSource:
    """Raw images, as their reader lists them.

    Attributes:
        kind: "dataset".
        next_stage: the stage to run on it.
        path: its folder.
        table: its manifest.
        relations: which images are related, or None.
        is_list: whether no image exists, so that only the list was read.
        made_from: the options that decide the manifest.
    """

    kind = "dataset"
    next_stage = "build_records"

    def __init__(self, options: CheckOptions):
        self.path = Path(options.dataset)
        self.is_list = False
        self._is_list_wanted = not options.check_images
        how = options.reader_options
        self.made_from = how
        try:
            self._reading = readers.read(self.path, **how)
        except (FileNotFoundError, NoImages) as error:
            if not readers.reads_lists(options.reader) or (
                not self.path.is_dir()
            ):
                raise
            if not self._is_list_wanted:
                logging.warning("%s Only the list is checked.", error)
            self._reading = readers.read(self.path, **how, list_only=True)
            self.is_list = True
        self.table = self._reading.manifest
        self.relations = self._reading.relations

    def findings(self) -> list[Finding]:
        """Files left out, what was assumed, and a list without its images."""
        findings = image_findings.refused(self._reading.rejected)
        findings += [
            Finding(severity=WARNING, **vars(assumption))
            for assumption in self._reading.assumptions
        ]
        if self.is_list:
            findings.append(
                Finding(
                    severity=NOTE if self._is_list_wanted else ERROR,
                    name="no_image_there",
                    message=f"None of the {len(self.table):,} images listed "
                    "exists: only the list was checked.",
                    action="Move or link the images to the paths in the list. "
                    "--nocheck_images checks a list without its images.",
                    count=len(self.table),
                )
            )
        return findings

    def loads(self) -> Iterator[Callable[[], bytes]]:
        """For every row, a function that reads the bytes of its image."""
        for row in range(len(self.table)):
            yield lambda row=row: self.load(row)

    def load(self, row: int) -> bytes:
        """Reads the bytes of the image of a row.

        Raises:
            OSError: the file cannot be read.
            ValueError: the image is a part of a file that cannot be decoded,
                or a part beyond its edges, or a HEIC file that cannot be read.
        """
        source = self._reading.source(self.table["image_id"].iat[row])
        path = self._reading.root / source.path
        encoded = heif.as_jpeg(path.read_bytes())
        if source.box is None:
            return encoded
        cut = image_decoding.cut(image_decoding.pixels(encoded), source.box)
        return tf.io.encode_png(cut).numpy()


class RecordsSource:
    """Built records; its attributes are those of `DatasetSource`."""

    kind = "records"
    next_stage = "train"
    is_list = False

    def __init__(self, path: str | Path):
        self._records = Records(path)
        self.path = self._records.path
        self.table = self._records.manifest
        self.relations = self._records.relations
        self.made_from = {"fingerprint": self._records.fingerprint}

    def findings(self) -> list[Finding]:
        """Files that the builder left out, and records without digests."""
        findings = []
        rejected = self._records.metadata["rejected"]
        if rejected:
            findings.append(
                Finding(
                    severity=NOTE,
                    name="left_out",
                    message=f"{count(rejected, 'file')} left out when the "
                    "records were built.",
                    action=f"See {self.path / 'rejected.csv'}.",
                    count=rejected,
                )
            )
        if "digests" not in self._records.metadata:
            findings.append(
                Finding(
                    severity=WARNING,
                    name="no_digests",
                    message="The records hold no digests of manifest.parquet "
                    "and records.json, since an earlier version built them: "
                    "what opens them cannot tell whether they have changed.",
                    action="To add digests, delete the folder and run "
                    f"{COMMAND} again.",
                    count=1,
                )
            )
        return findings

    def loads(self) -> Iterator[Callable[[], bytes]]:
        """For every row, a function that gives the bytes of its image."""
        for start in range(0, len(self.table), _BLOCK):
            block = self.table.iloc[start : start + _BLOCK]
            try:
                for encoded in list(self._records.read_images(block)):
                    yield lambda encoded=encoded: encoded
            except ValueError:
                # One of them is damaged: read each by itself.
                for row in range(start, start + len(block)):
                    yield lambda row=row: self.load(row)

    def load(self, row: int) -> bytes:
        """Reads the bytes of the image of a row.

        Raises:
            ValueError: the record is damaged.
        """
        [encoded] = self._records.read_images(self.table.iloc[[row]])
        return encoded


def open_source(options: CheckOptions) -> DatasetSource | RecordsSource:
    """Opens the dataset or the records that options name.

    Raises:
        FileNotFoundError: neither a dataset nor records exist.
        ValueError: they cannot be read at all, or no folder is named.
    """
    folders = {"dataset": options.dataset, "records": options.records}
    kind = options.check_of
    if kind == "auto":
        named = [name for name, path in folders.items() if path is not None]
        existing = [name for name in named if Path(folders[name]).is_dir()]
        # A folder that does not exist is refused when it is read.
        kind = (existing or named or ["dataset"])[0]
    if folders[kind] is None:
        raise ValueError(
            "Expected --dataset or --records, to check either. Received: no "
            f"--{kind}. Give it on the command line or in the flagfile."
        )
    if kind == "dataset":
        return DatasetSource(options)
    return RecordsSource(options.records)
