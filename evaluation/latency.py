"""How long a detector takes per image, and on which machine."""

import os
import platform
from pathlib import Path

import numpy as np

from evaluation.scorecard import Latency


def summarise_latency(seconds: list[float]) -> Latency:
    """The median and the 95th percentile of the calls' durations in seconds, with this machine's facts."""
    return Latency(
        calls=len(seconds),
        median_s=float(np.median(seconds)),
        p95_s=float(np.quantile(seconds, 0.95)),
        cpu=cpu_name(),
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def cpu_name() -> str:
    """The processor as its maker calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
