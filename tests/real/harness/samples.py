"""Sample files made by common libraries, and the EICAR test file, assembled at run time so that no scanner finds it in
a checkout."""

import io
import random
import zipfile

from PIL import Image

EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*").encode()


def noise(seed, length):
    """Returns reproducible random bytes."""
    return random.Random(seed).randbytes(length)


def picture(kind, size=(640, 480), seed=0):
    """Returns a picture that is large enough for thumbnails, as PNG, JPEG, GIF or WEBP."""
    coarse = Image.frombytes("RGB", (16, 12), noise(seed, 16 * 12 * 3))
    out = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def pdf():
    out = io.BytesIO()
    Image.new("RGB", (100, 100), "white").save(out, "PDF")
    return out.getvalue()


def zipped(content, name):
    """Returns a deflated zip archive: a scanner has to unpack it to find `content`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def video(colours, seconds):
    """Returns a WebM video with `seconds` of each colour. Noise makes it so large that a player fetches it in
    ranges."""
    import av  # Imported here because it loads slowly and only one test needs it.

    out, size, rate = io.BytesIO(), (320, 240), 10
    with av.open(out, "w", "webm") as container:
        options = {"b": "20M", "crf": "4", "deadline": "realtime", "cpu-used": "8", "g": str(rate)}
        stream = container.add_stream("libvpx", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(len(colours) * seconds * rate):
            plain = Image.new("RGB", size, colours[number // (seconds * rate)])
            grain = Image.frombytes("RGB", size, noise(number, size[0] * size[1] * 3))
            container.mux(stream.encode(av.VideoFrame.from_image(Image.blend(plain, grain, 0.3))))
        container.mux(stream.encode())
    return out.getvalue()
