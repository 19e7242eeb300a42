"""The process that decodes strangers' pictures: started as a script, fed through a pipe, and killed when one
costs too much.

It knows no credentials, writes no file, and sees only what is left of a JPEG once its metadata is gone.
Requests are a length (4 bytes, big endian) and the picture's bytes; answers a length and JSON: ``{width,
height, phash, descriptor}`` or ``{fault, what}``.
"""

import json
import resource
import struct
import sys
from typing import Any

from PIL import Image

from trashnet.images import DECODE_ERRORS, UnfitImage, open_image, perceptual_hash
from trashnet.quarantine import QuarantineReason

LENGTH = struct.Struct(">I")
CELLS = 8  # a side of the descriptor


def describe(data: bytes, min_side: int, max_pixels: int) -> dict[str, Any]:
    """Decode a picture in full and say its size, its perceptual hash and the mean colours of its 8 x 8 cells
    (RGB, row by row).
    """
    try:
        image = open_image(data, ("JPEG",), min_side=min_side, max_pixels=max_pixels)
        image.load()
        phash = perceptual_hash(image)
        cells = image.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX).tobytes()
    except UnfitImage as unfit:
        return {"fault": unfit.fault, "what": unfit.what}
    except MemoryError:
        return {"fault": QuarantineReason.TOO_COSTLY, "what": "decoding needs more memory than it may have"}
    except DECODE_ERRORS as error:
        return {"fault": QuarantineReason.BROKEN, "what": f"does not decode: {error}"}
    return {
        "width": image.width,
        "height": image.height,
        "phash": f"{phash:016x}" if phash else None,
        "descriptor": cells.hex(),
    }


def serve(memory_mb: int, cpu_seconds: int, min_side: int, max_pixels: int) -> None:
    """Answer requests until the pipe closes."""
    import imagehash  # noqa: F401  (loaded before memory is short)
    import scipy.fftpack  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while header := sys.stdin.buffer.read(LENGTH.size):
        data = sys.stdin.buffer.read(LENGTH.unpack(header)[0])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # The limit counts the process's whole life; what is left of it is this picture's.
        resource.setrlimit(
            resource.RLIMIT_CPU,
            (int(usage.ru_utime + usage.ru_stime) + 1 + cpu_seconds, resource.RLIM_INFINITY),
        )
        answer = json.dumps(describe(data, min_side, max_pixels)).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:5]))
