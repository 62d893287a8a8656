"""A generator over HTTP as one writes it in an afternoon: FastAPI over plain onnxruntime.

    MODEL=digits.onnx Z_DIM=32 NUM_CLASSES=10 uvicorn serving_by_hand:app

What `gan serve` is measured against, by benchmarks/serving.py. It draws latents of its own, which
are cheaper than ours, and merges no requests. MODEL: z, and y if there are classes -> uint8
(N, H, W, C), as `gan extract` gives it.
"""

import io
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Response
from PIL import Image

Z_DIM, NUM_CLASSES = int(os.environ["Z_DIM"]), int(os.environ["NUM_CLASSES"])
session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
app = FastAPI()


def draw(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    feed = {"z": rng.standard_normal((n, Z_DIM), np.float32)}
    if NUM_CLASSES:
        feed["y"] = rng.integers(0, NUM_CLASSES, n)
    images: np.ndarray = session.run(None, feed)[0]
    return images


@app.get("/images")
def images(seed: int, n: int = 1) -> Response:
    return Response(draw(seed, n).tobytes(), media_type="application/octet-stream")


@app.get("/image.png")
def image(seed: int) -> Response:
    buffer = io.BytesIO()
    Image.fromarray(draw(seed, 1)[0].squeeze()).save(buffer, "png")
    return Response(buffer.getvalue(), media_type="image/png")
