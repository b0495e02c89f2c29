"""Files as people send them, made by real programs' libraries; and the EICAR test file, put together
here so that no scanner finds it in a checkout."""

import io
import random
import zipfile

from PIL import Image

EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*").encode()


def noise(seed, length):
    """Bytes that look like nothing; another seed gives other bytes."""
    return random.Random(seed).randbytes(length)


def picture(kind, size=(640, 480), seed=0):
    """A picture that is worth a thumbnail: PNG, JPEG, GIF or WEBP."""
    coarse = Image.frombytes("RGB", (16, 12), noise(seed, 16 * 12 * 3))
    out = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def pdf():
    out = io.BytesIO()
    Image.new("RGB", (100, 100), "white").save(out, "PDF")
    return out.getvalue()


def zipped(content, name):
    """A zip, deflated: who finds something in it has unpacked it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()
