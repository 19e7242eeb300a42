"""Runs Google's ``edgetpu_compiler``, where it is installed, and turns its log into gates.

The program is closed and runs on x86-64 only.
"""

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.edgetpu import Gate

PROGRAM = "edgetpu_compiler"
MAX_CPU_OPERATORS = 3  # the post-processing and two DEQUANTIZE
TIMEOUT_SECONDS = 600  # its own limit is 180
BYTES_PER_UNIT = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True)
class CompilerLog:
    """The log of ``edgetpu_compiler``; ``None`` where it does not mention a number. Sizes in bytes."""

    version: str | None
    succeeded: bool
    subgraphs: int | None
    operators: int | None
    on_tpu: int | None
    on_cpu: int | None
    on_chip: int | None
    off_chip: int | None

    def gates(self) -> tuple[Gate, ...]:
        """The gates of a compiled model.

        "Compiled successfully" alone means nothing: google-coral/edgetpu issue 358 compiled with no operator
        on the chip.
        """
        on_tpu, on_cpu = self.on_tpu or 0, self.on_cpu or 0
        all_mapped = on_tpu > 0 and self.operators == on_tpu + on_cpu and on_cpu <= MAX_CPU_OPERATORS
        weights = f"{self.off_chip} bytes off, {self.on_chip} on chip"
        return (
            Gate("compiler: succeeds", self.succeeded, "yes" if self.succeeded else "no"),
            Gate(
                f"compiler: maps all operators but {MAX_CPU_OPERATORS}",
                all_mapped,
                f"{on_tpu} of {self.operators} on the EdgeTPU",
            ),
            Gate("compiler: one EdgeTPU subgraph", self.subgraphs == 1, f"{self.subgraphs}"),
            Gate("compiler: no weights off chip", self.off_chip == 0, weights),
        )

    def as_json(self) -> dict[str, Any]:
        """The log as it stands in ``edgetpu.json``."""
        return asdict(self)


def find_compiler() -> str | None:
    """The path of ``edgetpu_compiler``, ``None`` where it is not on ``PATH``."""
    return shutil.which(PROGRAM)


def compile_model(program: str, model: Path, folder: Path) -> tuple[CompilerLog, Path]:
    """Compile ``model`` into ``folder``.

    Returns:
        The log, and the path of the compiled file, which exists if the compiler succeeded.
    """
    done = subprocess.run(
        [program, "-s", "-o", str(folder), str(model)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    log = parse_log(done.stdout + done.stderr, succeeded=done.returncode == 0)
    return log, folder / f"{model.stem}_edgetpu.tflite"


def parse_log(text: str, *, succeeded: bool) -> CompilerLog:
    """Read what the compiler prints (format of version 16.0.384591198)."""

    def number(label: str) -> int | None:
        match = re.search(rf"{label}:\s*(\d+)", text)
        return int(match[1]) if match else None

    def size(label: str) -> int | None:
        match = re.search(rf"{label}:\s*([\d.]+)\s*([KMG]?i?B)", text)
        return round(float(match[1]) * BYTES_PER_UNIT[match[2]]) if match else None

    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    operators = number("Total number of operations")
    on_tpu = number("Number of operations that will run on Edge TPU")
    on_cpu = number("Number of operations that will run on CPU")
    subgraphs = number("Number of Edge TPU subgraphs")
    if on_tpu is None and on_cpu is None and subgraphs:  # it prints no counts where every operator maps
        on_tpu, on_cpu = operators, 0
    return CompilerLog(
        version=version[1] if version else None,
        succeeded=succeeded and "Model compiled successfully" in text,
        subgraphs=subgraphs,
        operators=operators,
        on_tpu=on_tpu,
        on_cpu=on_cpu,
        on_chip=size("On-chip memory used for caching model parameters"),
        off_chip=size("Off-chip memory used for streaming uncached model parameters"),
    )
