"""Loads `locate --serve` with many clients at once, beside the bare export.

    python -m sare_tf.demo --flagfile=configs/demo.flags
    python -m benchmarks.serving_load --index=runs/demo/index \
        --export=runs/demo/export --records=runs/demo/records

A server is started in a process of its own, with --index, --export and
--records; clients send photographs of --records for --seconds, each the next
one after its answer. A client that is refused with 503 waits as long as
Retry-After says. Printed are answers per second, the time of an answer as the
clients see it (p50, p99), refusals, any other failure, the photographs of a
batch on average, and the resident memory of the server: when it was warm, after
a half, and at the end. After SIGTERM, no request that was sent may be lost.

Beside it: the same photographs by the exported model alone, in batches of
--serve_batch, with no server and no search. Clients, server and model share the
cores, which counts against the server.
"""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from absl import app, flags

from benchmarks import measure
from sare_tf import serving
from sare_tf.records.records import Records

FLAGS = flags.FLAGS
flags.DEFINE_string("index", None, "The index.", required=True)
flags.DEFINE_string("export", None, "Its export.", required=True)
flags.DEFINE_string("records", None, "Its records.", required=True)
flags.DEFINE_integer("serve_batch", 8, "As of locate.", 1)
flags.DEFINE_integer("serve_waiting", 64, "As of locate.", 1)
flags.DEFINE_integer("clients", 200, "Clients at a time.", 1)
flags.DEFINE_float("seconds", 60.0, "Seconds of load.", 1)
flags.DEFINE_integer("photographs", 64, "Different photographs.", 1)

_SILENCE_S = 60.0


@dataclasses.dataclass
class Counts:
    """What clients saw."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    refused: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


def send(port, photographs, first, end, counts):
    """Sends photographs one after the other until a time."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=_SILENCE_S
    )
    number = first
    with contextlib.closing(connection):
        while time.monotonic() < end:
            body = photographs[number % len(photographs)]
            number += 1
            begin = time.monotonic()
            try:
                connection.request("POST", "/locate", body=body)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                counts.failures.append(repr(error))
                connection.close()
                continue
            if response.status == 200:
                counts.seconds.append(time.monotonic() - begin)
            elif response.status == 503:
                counts.refused += 1
                time.sleep(int(response.headers["Retry-After"]))
            else:
                counts.failures.append(f"status {response.status}")


def start():
    """Starts a server; returns its process and port."""
    command = [sys.executable, "-m", "sare_tf.locate", "--serve", "--port=0"]
    command += [
        f"--{name}={FLAGS[name].value}"
        for name in (
            *("index", "export", "records"),
            *("serve_batch", "serve_waiting"),
        )
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.search(r"http://127.0.0.1:(\d+)", line):
            # Whatever it logs later must not fill the pipe.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, int(found[1])
    raise ValueError(f"Expected a server. Received: exit {process.wait()}.")


def resident_mib(process):
    """Returns the resident memory of a process."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return int(file.read().split("VmRSS:")[1].split()[0]) / 1024


def metrics(port):
    """Returns the metrics of the server by name."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=_SILENCE_S)
    ) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    values = (line.rpartition(" ") for line in lines if line[0] != "#")
    return {name: float(value) for name, _, value in values}


def load(port, process, photographs):
    """Loads the server; returns counts, and its memory in the middle."""
    counts = Counts()
    end = time.monotonic() + FLAGS.seconds
    with concurrent.futures.ThreadPoolExecutor(FLAGS.clients) as clients:
        sent = [
            clients.submit(send, port, photographs, first, end, counts)
            for first in range(FLAGS.clients)
        ]
        time.sleep(FLAGS.seconds / 2)
        middle = resident_mib(process)
        for one in sent:
            one.result()
    return counts, middle


def bare(export, size, photographs):
    """Returns images per second of the model alone, in batches of a size."""
    model = serving.load(export)
    batches = [
        photographs[start : start + size]
        for start in range(0, len(photographs), size)
    ]
    seconds = measure.median_seconds(
        lambda: [model(batch) for batch in batches], repeats=5
    )
    return len(photographs) / seconds


def main(argv):
    del argv
    records = Records(FLAGS.records)
    rows = records.manifest
    rows = rows[rows["role"] == "query"].head(FLAGS.photographs)
    photographs = list(records.read_images(rows))
    process, port = start()
    try:
        warm = Counts()
        send(port, photographs, 0, time.monotonic() + 5, warm)
        before = resident_mib(process)
        counts, middle = load(port, process, photographs)
        after = resident_mib(process)
        found = metrics(port)
        process.send_signal(signal.SIGTERM)
        code = process.wait(_SILENCE_S)
    finally:
        process.kill()
    p50, p99 = np.percentile(counts.seconds, (50, 99))
    batch = found["sare_tf_batch_photographs_sum"]
    batch /= found["sare_tf_batch_photographs_count"]
    alone = measure.in_a_process(
        bare, FLAGS.export, FLAGS.serve_batch, photographs
    )
    rate = len(counts.seconds) / FLAGS.seconds
    print(
        f"{FLAGS.clients} clients, {FLAGS.seconds:g} s: {rate:.1f} answers/s, "
        f"p50 {1000 * p50:,.0f} ms, p99 {1000 * p99:,.0f} ms; "
        f"{counts.refused} refused with 503, {len(counts.failures)} other "
        f"failures {sorted(set(counts.failures))[:3]}; {batch:.1f} photographs "
        f"in a batch; one client alone {1000 * np.median(warm.seconds):.0f} "
        f"ms; memory {before:,.0f}, {middle:,.0f}, {after:,.0f} MiB; exit "
        f"{code}.\nThe model alone: {alone:.1f} images/s, so the server "
        f"answers at {rate / alone:.2f} of that."
    )


if __name__ == "__main__":
    app.run(main)
