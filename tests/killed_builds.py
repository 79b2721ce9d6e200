"""Builds that are killed, for test_build_killed: run as a process of its own.

    python tests/killed_builds.py PHOTOS RECORDS POINTS

Kills a build, by SIGKILL, at POINTS of the moments at which it touches the file
system, and each time runs it again. Builds start from nothing, and from records
of fewer images. Prints how many moments there were; fails with what differs.
"""

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from sare_tf import build_records
from sare_tf.records.options import RecordOptions

# Python tells its hooks of these before it does them.
MOMENTS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}


def build(photos, records):
    # Without decoding, TensorFlow starts no thread that a fork would lack.
    build_records.run(
        RecordOptions(
            dataset=photos,
            records=records,
            reader="place_folders",
            num_workers=1,
            verify_images=False,
            shard_mebibytes=1,
        )
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forked(function):
    """Runs a function in a copy of this process; its wait status."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def succeeds(function):
    if forked(function):
        sys.exit(f"{function} failed")


def counted(photos, records):
    """Builds, and writes the number of its moments beside the records."""
    moments = []
    sys.addaudithook(
        lambda event, _: moments.append(event) if event in MOMENTS else None
    )
    build(photos, records)
    records.with_suffix(".count").write_text(str(len(moments)))


def killed(photos, records, last):
    """Builds until the moment before which the kill comes."""
    left = last

    def hook(event, _):
        nonlocal left
        if event in MOMENTS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    build(photos, records)


def check(photos, records, points, *, earlier=None):
    """Kills builds; they start from the records `earlier`, if given."""

    def start():
        for folder in (records, records.with_name(f".{records.name}.partial")):
            shutil.rmtree(folder, ignore_errors=True)
        if earlier:
            shutil.copytree(earlier, records)

    start()
    succeeds(lambda: counted(photos, records))
    whole = contents(records)
    count = int(records.with_suffix(".count").read_text())
    for point in range(points):
        start()
        before = contents(records) if earlier else None
        last = round(point * (count - 1) / (points - 1))
        status = forked(lambda last=last: killed(photos, records, last))
        if not os.WIFSIGNALED(status):
            sys.exit(f"not killed at moment {last} of {count}: {status}")
        # What stands there is what was there before, or all that was wanted.
        if records.exists() and contents(records) not in (before, whole):
            sys.exit(f"half-written records after moment {last} of {count}")
        succeeds(lambda: build(photos, records))
        if contents(records) != whole:
            sys.exit(f"other records after moment {last} of {count}")
        if any(records.parent.glob(f".{records.name}.*")):
            sys.exit(f"something is left over after moment {last} of {count}")
    return count, whole


def main():
    photos, records = map(Path, sys.argv[1:3])
    points = int(sys.argv[3])
    added = list((photos / "val/database/p1").iterdir())
    for path in added:
        path.rename(photos.parent / path.name)
    count, _ = check(photos, records, points)
    earlier = records.with_name("earlier")
    records.rename(earlier)
    for path in added:
        (photos.parent / path.name).rename(path)
    more, whole = check(photos, records, points, earlier=earlier)
    shutil.rmtree(records)
    succeeds(lambda: build(photos, records))
    if contents(records) != whole:
        sys.exit("records depend on the earlier ones")
    sys.stdout.write(f"{count} {more}\n")


if __name__ == "__main__":
    main()
