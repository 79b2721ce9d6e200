"""records/ -> a dataset in the layout of another project.

    python -m sare_tf.export_dataset --records=runs/own/records \
        --layout=at_names --out=runs/own/for_others

The images are written as they are in the records. `records.dataset_layouts`
lists the layouts.
"""

from pathlib import Path

from sare_tf import flags
from sare_tf.records import dataset_layouts
from sare_tf.records.options import ExportDatasetOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, progress, run_lock, stage_results


@run_lock.one_at_a_time("out")
def run(options: ExportDatasetOptions) -> Path:
    """Writes the images of records, and the files of a layout beside them.

    Args:
        options: the records, the new folder and its layout.

    Returns:
        The new folder.

    Raises:
        FileNotFoundError: no finished records are there.
        ValueError: a folder that exists, or images of which the layout cannot
            say which match.
    """
    out, layout = Path(options.out), options.layout
    atomic_files.check_new(out)
    opened = Records(options.records)
    with (
        atomic_files.folder_in_one_piece(out) as folder,
        progress.bar("export dataset", total=len(opened.manifest)) as bar,
    ):
        names = dataset_layouts.describe(layout, folder, opened.manifest)
        images = opened.read_images(opened.manifest)
        for name, encoded in zip(names, images, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
            bar.update(1)
    stage_results.report(
        "export_dataset",
        f"{len(names)} images as {layout} in {out}.",
        path=out,
        layout=layout,
        count=len(names),
    )
    return out


def main(argv) -> None:
    del argv
    run(ExportDatasetOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
