"""Decode untrusted pictures in separate processes.

They are limited in memory and time, and replaced when a picture kills them.
"""

import json
import os
import queue
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ingest.params import IngestParams
from trashnet.images import UnfitImage
from trashnet.quarantine import QuarantineReason

# As ingest/decoder_process.py has them, which is a script and not imported.
LENGTH, READY = struct.Struct(">I"), b"R"
START_SECONDS = 60.0  # for a process to load its libraries on a busy machine
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding found: size in pixels, perceptual hash and colours.

    ``phash`` is 16 hexadecimal digits, ``None`` for a picture too plain to have one; ``descriptor`` holds the
    mean RGB of 8 x 8 cells, row by row, 192 bytes.
    """

    width: int
    height: int
    phash: str | None
    descriptor: bytes


class DecoderDied(Exception):
    """The decoding process died or had to be killed."""


class DecoderPool:
    """A few decoding processes that any number of threads share.

    A process starts when it is first needed; all stop at the end of the ``with`` block.
    """

    def __init__(self, params: IngestParams) -> None:
        self._params = params
        self._idle: queue.LifoQueue[_DecoderProcess | None] = queue.LifoQueue()  # the one used last is warm
        self._size = params.decoders or len(os.sched_getaffinity(0))
        for _ in range(self._size):
            self._idle.put(None)
        self._alone = threading.Lock()  # held by the one thread that waits for all processes

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while not self._idle.empty():
            if decoder := self._idle.get():
                decoder.stop()

    def decode(self, jpeg: bytes) -> Decoded:
        """Decode a picture in full. Raises :class:`UnfitImage`.

        One process that dies or is too slow proves nothing: the machine may be short of memory or time. The
        picture is refused when a new process fails as well, while no other picture is being decoded.
        """
        try:
            return self._decode_in(self._idle.get(), jpeg)
        except DecoderDied:
            pass
        with self._alone:
            slots = [self._idle.get() for _ in range(self._size)]  # every other picture has ended
            try:
                if (old := slots.pop()) is not None:
                    old.stop()
                return self._decode_in(None, jpeg)
            except DecoderDied as died:
                raise UnfitImage(QuarantineReason.TOO_COSTLY, str(died)) from None
            finally:
                for slot in slots:
                    self._idle.put(slot)

    def _decode_in(self, decoder: "_DecoderProcess | None", jpeg: bytes) -> Decoded:
        """Decode in an idle process or in a new one, and put it back. Raises :class:`DecoderDied`."""
        idle = None
        try:
            decoder = decoder or _DecoderProcess(self._params)
            try:
                decoded = decoder.decode(jpeg)
            except UnfitImage:
                idle = decoder
                raise
            except BaseException:  # also: a late response would be taken for the next picture's
                decoder.stop()
                raise
            idle = decoder
            return decoded
        finally:
            self._idle.put(idle)


class _DecoderProcess:
    """One decoding process, used by one thread at a time."""

    def __init__(self, params: IngestParams) -> None:
        self._params, self._is_ready = params, False
        limits = (params.decode_memory_mb, params.decode_seconds, params.min_side, params.max_pixels)
        # -P and this environment: the process sees our code and its libraries, and no credentials.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "decoder_process.py"), *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(HERE.parent), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def decode(self, jpeg: bytes) -> Decoded:
        """Raises :class:`UnfitImage`, and :class:`DecoderDied`, after which the process must be stopped."""
        if not self._is_ready:
            self._read(len(READY), time.monotonic() + START_SECONDS, START_SECONDS)
            self._is_ready = True
        seconds = self._params.decode_wall_seconds
        deadline = time.monotonic() + seconds  # from now on: loading the libraries is not the picture's fault
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(LENGTH.pack(len(jpeg)) + jpeg)
            self._process.stdin.flush()
        except OSError:
            raise DecoderDied(self._exit_reason()) from None
        size = LENGTH.unpack(self._read(LENGTH.size, deadline, seconds))[0]
        response = json.loads(self._read(size, deadline, seconds))
        if "fault" in response:
            raise UnfitImage(QuarantineReason(response["fault"]), response["what"])
        return Decoded(
            response["width"], response["height"], response["phash"], bytes.fromhex(response["descriptor"])
        )

    def _read(self, count: int, deadline: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        handle, data, ready = self._process.stdout.fileno(), b"", select.poll()
        ready.register(handle, select.POLLIN)
        while len(data) < count:
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise DecoderDied(f"decoding took more than {seconds:g} s")
            if not (more := os.read(handle, count - len(data))):
                raise DecoderDied(self._exit_reason())
            data += more
        return data

    def _exit_reason(self) -> str:
        code = self._process.wait()
        limits = f"{self._params.decode_seconds} s of CPU and {self._params.decode_memory_mb} MB"
        return f"decoding did not end within {limits} (the process ended with {code})"

    def stop(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # the rest of a request that the process did not read
                    continue
