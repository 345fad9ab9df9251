"""Makes a new image of the pixels of one that came by mail, by Pillow.

Only what was decoded reaches a browser: no metadata, no script in SVG, no file that is
an image and something else. Raises ImageRefused with the reason.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
CONTENT_LIMIT = 10 << 20  # bytes
PIXEL_LIMIT = 20_000_000  # a camera's picture; 80 MB of memory
SIDE_LIMIT = 1600  # pixels of what is shown
MEDIA_TYPE = "image/png"

Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
warnings.simplefilter("error", Image.DecompressionBombWarning)


class ImageRefused(Exception):
    """An image is not shown. The text says why."""


def encode(content: bytes) -> bytes:
    """Return the first picture in a file as PNG, at most SIDE_LIMIT pixels wide."""
    if len(content) > CONTENT_LIMIT:
        raise ImageRefused(f"more than {CONTENT_LIMIT >> 20} MB")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ImageRefused(f"{image.width} × {image.height} pixels")
            image.draft("RGB", (SIDE_LIMIT, SIDE_LIMIT))
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            pixels = image.convert("RGBA" if has_alpha else "RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageRefused(f"more than {PIXEL_LIMIT} pixels") from None
    except ImageRefused:
        raise
    # Pillow's decoders raise whatever a damaged file leads them to.
    except Exception as error:
        raise ImageRefused("it cannot be read as an image") from error
    pixels.thumbnail((SIDE_LIMIT, SIDE_LIMIT))
    pixels.info.clear()
    result = io.BytesIO()
    pixels.save(result, "PNG", compress_level=3)
    return result.getvalue()
