"""A drawing as a PDF of one page: lines and words in the fonts that every viewer has."""

import zlib

from gantrain.report.shapes import Bitmap, Dot, Drawing, Line, Shape, Text

# Advance widths of Helvetica's characters 32 to 126, in thousandths of the size, of its public
# metrics. Bold is a little wider; only titles are bold, and they begin at their place.
_WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)
_CIRCLE = 0.5523  # how far the handles of a quarter of a circle reach, of its radius


def pdf(drawing: Drawing) -> bytes:
    """The file: one page of the drawing's size, in points."""
    images = [shape for shape in drawing.shapes if isinstance(shape, Bitmap)]
    names = {id(image): f"I{number}" for number, image in enumerate(images)}
    content = "\n".join(_operators(shape, names) for shape in drawing.shapes)
    # PDF's y grows upwards; this turns the page over, and text and images are turned back.
    page = f"1 0 0 -1 0 {drawing.height:g} cm\n{content}".encode("ascii")
    first = 7  # the number of the first image
    listed = " ".join(f"/I{n} {first + n} 0 R" for n in range(len(images)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {drawing.width:g} {drawing.height:g}]"
            f" /Contents 6 0 R /Resources << /Font << /plain 4 0 R /bold 5 0 R >>"
            f" /XObject << {listed} >> >> >>"
        ).encode(),
        _font("Helvetica"),
        _font("Helvetica-Bold"),
        _stream("", page),
        *map(_image, images),
    ]
    return _file(objects)


def _file(objects: list[bytes]) -> bytes:
    out, places = bytearray(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, count = len(out), len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % count
    for place in places:
        out += b"%010d 00000 n \n" % place
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, start)
    return bytes(out)


def _stream(entries: str, data: bytes) -> bytes:
    packed = zlib.compress(data, 9)
    head = f"<< {entries} /Filter /FlateDecode /Length {len(packed)} >>".encode()
    return head + b"\nstream\n" + packed + b"\nendstream"


def _font(name: str) -> bytes:
    return (
        f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>".encode()
    )


def _image(bitmap: Bitmap) -> bytes:
    height, width, channels = bitmap.pixels.shape
    space = "/DeviceGray" if channels == 1 else "/DeviceRGB"
    entries = (
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace {space}"
        " /BitsPerComponent 8"
    )
    return _stream(entries, bitmap.pixels.tobytes())


def _operators(shape: Shape, names: dict[int, str]) -> str:
    match shape:
        case Line():
            (x, y), *rest = shape.points
            path = f"{x:.2f} {y:.2f} m " + " ".join(f"{x:.2f} {y:.2f} l" for x, y in rest)
            dashes = "[5 4] 0 d" if shape.kind == "rule" else "[] 0 d"
            return f"{_rgb(shape.stroke)} RG {shape.width:g} w 1 j {dashes} {path} S"
        case Dot():
            return f"{_rgb(Line((), colour=shape.colour).stroke)} rg {_disc(shape.x, shape.y, 3)} f"
        case Text():
            return _words(shape)
        case Bitmap():
            box = f"{shape.width:.2f} 0 0 {-shape.height:.2f} {shape.x:.2f}"
            return f"q {box} {shape.y + shape.height:.2f} cm /{names[id(shape)]} Do Q"


def _words(text: Text) -> str:
    data = text.words.encode("cp1252", errors="replace")
    width = text.size / 1000 * sum(_WIDTHS[c - 32] if 32 <= c < 127 else 556 for c in data)
    back = {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    font = "bold" if text.kind == "title" else "plain"
    turned = "0 -1 -1 0" if text.upwards else "1 0 0 -1"
    x, y = (text.x, text.y + back) if text.upwards else (text.x - back, text.y)
    return (
        f"BT {_rgb(text.fill)} rg /{font} {text.size:g} Tf {turned} {x:.2f} {y:.2f} Tm"
        f" <{data.hex()}> Tj ET"
    )


def _disc(x: float, y: float, r: float) -> str:
    """Four curves around a centre."""
    k = r * _CIRCLE
    path = f"{x + r:.2f} {y:.2f} m"
    for a, b, c in (
        ((r, k), (k, r), (0, r)),
        ((-k, r), (-r, k), (-r, 0)),
        ((-r, -k), (-k, -r), (0, -r)),
        ((k, -r), (r, -k), (r, 0)),
    ):
        ends = " ".join(f"{x + dx:.2f} {y + dy:.2f}" for dx, dy in (a, b, c))
        path += f" {ends} c"
    return path


def _rgb(colour: str) -> str:
    return " ".join(f"{int(colour[i : i + 2], 16) / 255:.3f}" for i in (1, 3, 5))
