"""Google's ``edgetpu_compiler``, where somebody has it: run, its log read, its verdict a gate. It is closed and x86-64 only."""

import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.edgetpu import Gate

PROGRAM = "edgetpu_compiler"
CPU_OPERATORS = 3  # the post-processing and two DEQUANTIZE
TIMEOUT = 600  # seconds; its own limit is 180
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True)
class CompilerLog:
    """What ``edgetpu_compiler`` said; ``None`` where it said nothing of it. Sizes in bytes."""

    version: str | None
    succeeded: bool
    subgraphs: int | None
    operators: int | None
    on_tpu: int | None
    on_cpu: int | None
    on_chip: int | None
    off_chip: int | None

    def gates(self) -> tuple[Gate, ...]:
        """ "Compiled successfully" means nothing alone: google-coral/edgetpu issue 358 compiled with no operator on the chip."""
        mapped = self.on_tpu or 0
        return (
            Gate("compiler: succeeds", self.succeeded, "yes" if self.succeeded else "no"),
            Gate(
                f"compiler: maps all operators but {CPU_OPERATORS}",
                mapped > 0
                and self.operators == mapped + (self.on_cpu or 0)
                and (self.on_cpu or 0) <= CPU_OPERATORS,
                f"{mapped} of {self.operators} on the EdgeTPU",
            ),
            Gate("compiler: one EdgeTPU subgraph", self.subgraphs == 1, f"{self.subgraphs}"),
            Gate(
                "compiler: no weights off chip",
                self.off_chip == 0,
                f"{self.off_chip} bytes off, {self.on_chip} on chip",
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def find_compiler() -> str | None:
    """Where ``edgetpu_compiler`` is, if it is on ``PATH``."""
    return shutil.which(PROGRAM)


def compile_model(program: str, model: Path, folder: Path) -> tuple[CompilerLog, Path]:
    """Compile ``model`` into ``folder``; returns the log and where the compiled file is, if there is one."""
    done = subprocess.run(
        [program, "-s", "-o", str(folder), str(model)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return parse_log(
        done.stdout + done.stderr, succeeded=done.returncode == 0
    ), folder / f"{model.stem}_edgetpu.tflite"


def parse_log(text: str, *, succeeded: bool) -> CompilerLog:
    """Read what the compiler prints (format of version 16.0.384591198)."""

    def number(label: str) -> int | None:
        found = re.search(rf"{label}:\s*(\d+)", text)
        return int(found[1]) if found else None

    def size(label: str) -> int | None:
        found = re.search(rf"{label}:\s*([\d.]+)\s*([KMG]?i?B)", text)
        return round(float(found[1]) * UNITS[found[2]]) if found else None

    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    operators = number("Total number of operations")
    on_tpu, on_cpu = (
        number("Number of operations that will run on Edge TPU"),
        number("Number of operations that will run on CPU"),
    )
    subgraphs = number("Number of Edge TPU subgraphs")
    if on_tpu is None and on_cpu is None and subgraphs:  # when everything maps, it does not count
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
