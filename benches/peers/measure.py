"""What the peers share: their command line, the timing, and the line that they print."""

import argparse
import json
import statistics
import time

# Batch sizes of limbeck's own workloads.
TRAINING_BATCH = 128
INFERENCE_BATCH = 256

WARM_UP_STEPS = 2
MINIMUM_STEPS = 3


def command_line(description, workloads, modes=()):
    """The parser of every peer: WORKLOAD --seconds --threads [--mode]."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure (default: 2)")
    parser.add_argument("--images", type=int, help="work on this many images once instead, without a warm-up")
    parser.add_argument("--threads", type=int, default=2, help="how many threads to compute with (default: 2)")
    if modes:
        parser.add_argument("--mode", choices=modes, default=modes[0], help=f"default: {modes[0]}")
    return parser


def report(options, images, step):
    """Repeats `step`, which works on `images` images, for the time that was asked for; prints the median."""
    if options.images:
        least, seconds = -(-options.images // images), 0
    else:
        least, seconds = MINIMUM_STEPS, options.seconds
        # The first steps allocate, choose kernels and compile.
        for _ in range(WARM_UP_STEPS):
            step()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    line = {
        "workload": options.workload,
        "images_per_s": round(images / median, 1),
        "median_ms": round(median * 1e3, 3),
        "runs": len(times),
    }
    print(json.dumps(line), flush=True)
