"""The process that decodes untrusted pictures.

It is started as a script, reads requests from a pipe, and is killed when a picture costs too much. It has no
credentials, writes no file, and gets JPEGs without their metadata. A request is a length (4 bytes, big
endian) and the picture's bytes; a response is a length and JSON: ``{width, height, phash, descriptor}`` or
``{fault, what}``.
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
READY = b"R"  # written once, when everything is loaded
CELLS_PER_SIDE = 8  # of the descriptor


def describe(data: bytes, min_side: int, max_pixels: int) -> dict[str, Any]:
    """Decode a picture in full; returns its size, its hash and the mean RGB of 8 x 8 cells, row by row."""
    try:
        image = open_image(data, ("JPEG",), min_side=min_side, max_pixels=max_pixels)
        image.load()
        phash = perceptual_hash(image)
        colours = image if image.mode == "RGB" else image.convert("RGB")
        cells = colours.resize((CELLS_PER_SIDE, CELLS_PER_SIDE), Image.Resampling.BOX).tobytes()
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
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    while header := sys.stdin.buffer.read(LENGTH.size):
        data = sys.stdin.buffer.read(LENGTH.unpack(header)[0])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # The limit counts from the start of the process: it is raised by the seconds of this picture.
        resource.setrlimit(
            resource.RLIMIT_CPU,
            (int(usage.ru_utime + usage.ru_stime) + 1 + cpu_seconds, resource.RLIM_INFINITY),
        )
        response = json.dumps(describe(data, min_side, max_pixels)).encode()
        sys.stdout.buffer.write(LENGTH.pack(len(response)) + response)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:5]))
