"""A drawing as a PDF of one page, whose fonts are in it; by ReportLab (extra `figures`)."""

from io import BytesIO
from typing import Any

from PIL import Image

from ganinfer.errors import missing_extra
from gantrain.report.shapes import COLOURS, Bitmap, Dot, Drawing, Line, Shape, Text

_NARROWER = 0.9  # of the sizes of a drawing: ReportLab's own font is wider than Helvetica


def check_pdf() -> None:
    """Raises MissingExtra where no PDF can be written; before any work."""
    try:
        import reportlab  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("reportlab", error) from None


def pdf(drawing: Drawing) -> bytes:
    """The file: one page of the drawing's size, in points; the same bytes each time.

    Raises:
        MissingExtra: ReportLab is not installed.
    """
    check_pdf()
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen.canvas import Canvas

    registerFont(TTFont("plain", "Vera.ttf"))
    registerFont(TTFont("title", "VeraBd.ttf"))
    file = BytesIO()
    canvas = Canvas(file, (drawing.width, drawing.height), pageCompression=1, invariant=1)
    canvas.setTitle(drawing.title)
    canvas.setLineJoin(1)
    canvas.translate(0, drawing.height)  # its y grows upwards from here
    for shape in drawing.shapes:
        _put(canvas, shape)
    canvas.save()
    return file.getvalue()


def _put(canvas: Any, shape: Shape) -> None:
    match shape:
        case Line():
            (x, y), *rest = shape.points
            path = canvas.beginPath()
            path.moveTo(x, -y)
            for x, y in rest:
                path.lineTo(x, -y)
            canvas.setStrokeColor(shape.stroke)
            canvas.setLineWidth(shape.width)
            canvas.setDash([5, 4] if shape.kind == "rule" else [])
            canvas.drawPath(path)
        case Dot():
            canvas.setFillColor(COLOURS[shape.colour])
            canvas.circle(shape.x, -shape.y, 3, stroke=0, fill=1)
        case Text():
            canvas.saveState()
            canvas.translate(shape.x, -shape.y)
            canvas.rotate(90 if shape.upwards else 0)
            canvas.setFillColor(shape.fill)
            canvas.setFont("title" if shape.kind == "title" else "plain", _NARROWER * shape.size)
            draw = {"middle": canvas.drawCentredString, "end": canvas.drawRightString}
            draw.get(shape.anchor, canvas.drawString)(0, 0, shape.words)
            canvas.restoreState()
        case Bitmap():
            pixels = shape.pixels[..., 0] if shape.pixels.shape[2] == 1 else shape.pixels
            box = (shape.x, -shape.y - shape.height, shape.width, shape.height)
            canvas.drawInlineImage(Image.fromarray(pixels), *box)
