"""Images of other shapes than square, grey or RGB: from the module to the picture."""

import io
import tarfile
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export
from ganexport.subjects.spec import Spec
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.images import grid, save_png, to_uint8
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import DataError, RequestError
from ganinfer.film import save_film, walk
from ganinfer.shards import write_shards
from ganinfer.verify import verify_host
from gantrain.evaluation.evaluate import evaluate, target_moments
from gantrain.metrics._reference import save_moments

Z_DIM = 8
SHAPES = [(24, 40, 3), (31, 17, 4), (17, 31, 2)]  # H, W, C


class Disc(nn.Module):
    """A disc somewhere, in a colour of the latent's, on a plain ground."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(Z_DIM, 2 + channels)
        self.register_buffer("rows", torch.linspace(-1, 1, height)[:, None])
        self.register_buffer("columns", torch.linspace(-1, 1, width))

    def forward(self, z: Tensor) -> Tensor:
        mixed = self.mix(z).tanh()[:, :, None, None]
        squared = (self.rows - mixed[:, 0]) ** 2 + (self.columns - mixed[:, 1]) ** 2
        return (torch.sigmoid(9 - 20 * squared)[:, None] * 1.6 - 0.8) * mixed[:, 2:]


def disc(shape: tuple[int, int, int]) -> Disc:
    torch.manual_seed(0)
    return Disc(*shape)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.fixture(scope="module")
def exported(shape: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(
        disc(shape),
        Spec(z_dim=Z_DIM),
        tmp_path_factory.mktemp("shapes") / "x.gan",
        ExportOptions(num_images=1000),
    )


@pytest.fixture(scope="module")
def sampler(exported: Exported):
    with Sampler(exported.path) as opened:
        yield opened


def test_it_is_proven_here_and_on_any_host(exported: Exported, shape: tuple) -> None:
    assert all(gate.passed for gate in exported.gates)
    found = verify_host(exported.path)
    assert {"golden images", "paired FID / floor"} <= {gate.gate for gate in found}
    assert all(gate.passed for gate in found)
    with Bundle(exported.path) as opened:
        assert (opened.manifest.format_version, opened.manifest.model.shape) == (2, shape)
        height, width, channels = shape
        with Image.open(io.BytesIO(opened.read("preview.png"))) as preview:
            assert preview.mode == {2: "L", 3: "RGB", 4: "RGBA"}[channels]
            tile = 2 * width if channels == 2 else width
            assert (preview.width > preview.height) == (tile > height)


def test_images_are_torchs(sampler: Sampler, shape: tuple) -> None:
    z = torch.from_numpy(draw_latents(range(6), Z_DIM))
    with torch.no_grad():
        expected = to_uint8(disc(shape)(z).numpy()).transpose(0, 2, 3, 1)
    images = sampler.sample(6)
    assert images.shape == (6, *shape) == (6, *sampler.info["shape"])
    assert np.abs(images.astype(int) - expected).max() <= 1


def test_pictures_keep_every_pixel_or_are_refused(
    sampler: Sampler, shape: tuple, tmp_path: Path
) -> None:
    images = sampler.sample(2)
    if shape[2] == 2:
        for write in (
            lambda: sampler.sample(2, output="pil"),
            lambda: save_png(tmp_path / "x.png", images[0]),
            lambda: write_shards(sampler, 2, tmp_path / "tar"),
        ):
            with pytest.raises(RequestError, match=r"of .* channels.*npz"):
                write()
        assert not list(tmp_path.iterdir())
    else:
        pictures = sampler.sample(2, output="pil")
        assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), images)
        save_png(tmp_path / "x.png", images[0])
        with Image.open(tmp_path / "x.png") as picture:
            assert np.array_equal(np.asarray(picture), images[0])
        write_shards(sampler, 2, tmp_path / "tar")
        with tarfile.open(tmp_path / "tar" / "shard-000000.tar") as archive:
            data = [archive.extractfile(member).read() for member in archive.getmembers()]
        read = [np.asarray(Image.open(io.BytesIO(picture))) for picture in data]
        assert np.array_equal(np.stack(read), images)
    write_shards(sampler, 2, tmp_path / "npz", format="npz")
    with np.load(tmp_path / "npz" / "shard-000000.npz") as arrays:
        assert np.array_equal(arrays["images"], images)
    save_png(tmp_path / "grid.png", grid(images))


def test_films_play(sampler: Sampler, shape: tuple, tmp_path: Path) -> None:
    height, _, channels = shape
    frames = list(walk(sampler, [1, 5], 3, loop=True))
    scale, seen = {(24, 40, 3): (7, 40), (31, 17, 4): (9, 17), (17, 31, 2): (5, 62)}[shape]
    for name in ("x.gif", "x.webp"):
        save_film(tmp_path / name, frames)
        with Image.open(tmp_path / name) as film:
            assert (film.n_frames, film.size) == (6, (seen * scale, height * scale))
            film.seek(4)
            shown = np.asarray(film.convert("RGBA"))[scale // 2 :: scale, scale // 2 :: scale]
        if name == "x.webp":  # lossless, but for the colour of what is not seen
            frame = np.atleast_3d(np.concatenate(np.moveaxis(frames[4], 2, 0), axis=1))
            opaque = np.full_like(shown[..., :1], 255)
            colour = frames[4][..., :3] if channels != 2 else np.repeat(frame, 3, axis=2)
            alpha = frames[4][..., 3:] if channels == 4 else opaque
            assert np.array_equal(shown[..., 3:], alpha)
            assert np.array_equal(shown[..., :3] * (alpha > 0), colour * (alpha > 0))
        else:
            assert (shown[..., 3] == 255).all()
    av = pytest.importorskip("av")
    save_film(tmp_path / "x.mp4", frames)
    with av.open(tmp_path / "x.mp4") as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    even = [side * scale + side * scale % 2 for side in (height, seen)]
    assert (len(shown), shown[0].shape) == (6, (*even, 3))


def means(path: Path, channels: int) -> str:
    """A feature network: the mean of each channel."""
    graph = f"""
      <ir_version: 10, opset_import: ["" : 20]>
      means (float[n, {channels}, h, w] images) => (float[n, {channels}] features) {{
          pooled = GlobalAveragePool(images)
          features = Flatten(pooled)
      }}
    """
    onnx.save(onnx.parser.parse_model(graph), path)
    return str(path)


def test_fid_needs_moments_and_a_network_that_takes_such_images(
    exported: Exported, shape: tuple, shapes: Path, tmp_path: Path
) -> None:
    taking, other = means(tmp_path / "x.onnx", shape[2]), means(tmp_path / "5.onnx", 5)
    real = tmp_path / "real.npz"
    save_moments(target_moments(exported.path, num_images=200, extractor=taking), real)
    found = evaluate(exported.path, real, num_images=200, extractor=taking)
    assert found.values["fid"] == pytest.approx(0, abs=1e-6)  # of the very same images
    later = evaluate(exported.path, real, num_images=200, seed=10_000, extractor=taking)
    assert later.values["fid"] > 0.1
    with pytest.raises(DataError, match=r"takes images .C, H, W. = \(5, 'h', 'w'\)"):
        evaluate(exported.path, real, num_images=200, extractor=other)
    with pytest.raises(DataError, match=r"16, 16, 3\); give --data of that shape, or"):
        evaluate(exported.path, shapes, num_images=200)
