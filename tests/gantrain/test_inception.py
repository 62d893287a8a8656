"""Against the well-known implementations, with weights that are drawn.

inception_names.txt holds the names and shapes of pytorch-fid 0.3.0's network, made with torchvision
0.28.0. The frozen values come from these, with torch 2.13.0, on the weights and images drawn here:
- tf: torch-fidelity 0.4.0, FeatureExtractorInceptionV3's 2048 and logits_unbiased, and what its
  Mixed_6d.branch1x1 gives;
- pytorch: pytorch-fid 0.3.0, InceptionV3, which resizes the images itself;
- clean: clean-fid 0.1.35's resizer and scaling, then pytorch-fid's network.
"""

import hashlib
import http.server
import socket
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganinfer.errors import ConfigError, DataError
from gantrain.extractors import inception
from gantrain.extractors.inception import (
    INCEPTION_FILE,
    RESIZERS,
    InceptionExtractor,
    InceptionV3,
    fetch_inception,
    load_network,
    open_inception,
    resize,
)

NAMES = {
    name: tuple(map(int, shape))
    for name, *shape in map(
        str.split, Path(__file__).with_name("inception_names.txt").read_text().splitlines()
    )
}
CPU = torch.device("cpu")
PAYLOAD = bytes(range(256)) * 10_000  # more than one chunk
PAYLOAD_SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that keep activations in bounds, from raw bits: no version of numpy changes those."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    uniform = ((bits >> np.uint64(40)) / 2**24).reshape(shape)
    match name.rpartition(".")[2], len(shape):
        case (("weight" | "running_var"), 1):
            values = 0.5 + uniform
        case "weight", _:
            values = (2 * uniform - 1) * np.sqrt(6 / np.prod(shape[1:]))
        case _:
            values = uniform - 0.5
    return torch.from_numpy(values.astype(np.float32))


def drawn_pixels(*shape: int, key: int = 7) -> Tensor:
    """Whole numbers on [0, 255], float32."""
    bits = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    return torch.from_numpy((bits >> np.uint64(56)).astype(np.float32).reshape(shape))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: drawn(name, shape) for name, shape in NAMES.items()}


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the format that torch wrote when the weights were published."""
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> InceptionV3:
    return load_network(weights)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache that the weights belong in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ganpipe/weights"


def extractor(network: InceptionV3, resizer: str = "tf") -> InceptionExtractor:
    return InceptionExtractor(network, resizer, sha256="0" * 64, device=CPU)


def test_state_dict_has_the_published_names_and_shapes(network: InceptionV3) -> None:
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == NAMES
    assert len(NAMES) == 566


def test_weights_load_strictly(state: dict[str, Tensor]) -> None:
    network = InceptionV3()
    network.load_state_dict(state, strict=True)
    assert torch.equal(network.fc.weight, state["fc.weight"])


# Of each image: every 256th number from the 146th on, then the mean of all.
FEATURES = {
    "tf": [
        [2.1613, 11.7179, 4.2533, 7.1187, 15.4081, 1.9282, 6.7203, 26.0610, 4.9801],
        [1.9935, 11.6580, 4.3568, 7.0063, 15.1671, 1.8109, 6.5031, 25.6891, 4.9220],
    ],
    "pytorch": [
        [2.2600, 11.7891, 4.3380, 7.0830, 15.6298, 2.0245, 6.9266, 26.0867, 5.0221],
        [2.1037, 11.6372, 4.2933, 6.8117, 15.4135, 1.8156, 6.3879, 25.8719, 4.9499],
    ],
    "clean": [
        [2.5544, 13.4252, 5.0492, 8.0058, 18.2304, 2.0791, 7.8513, 30.0046, 5.7442],
        [2.3701, 13.1609, 4.7963, 7.9360, 17.7891, 1.9136, 7.4707, 29.5694, 5.6531],
    ],
}
LOGITS = [  # every 200th from the 5th on
    [3.8595, -8.8229, -10.0516, -2.5746, 6.9324, -7.5449],
    [3.2576, -8.5720, -9.0939, -2.3966, 6.9501, -7.6753],
]
SPATIAL = [  # every 256th from the 5th on
    [1.9730, 3.0181, 3.9573, 3.5671, 9.2634, 0.0, 11.8175, 0.0],
    [4.0888, 2.8379, 3.8903, 7.7579, 9.8029, 0.0, 10.8109, 0.0],
]


@pytest.mark.parametrize("resizer", RESIZERS)
def test_features_are_those_of_the_well_known_tools(network: InceptionV3, resizer: str) -> None:
    seen = extractor(network, resizer)(drawn_pixels(2, 3, 24, 40))
    assert seen.features.shape == (2, 2048)
    found = torch.cat([seen.features[:, 146::256], seen.features.mean(1, keepdim=True)], 1)
    np.testing.assert_allclose(found, FEATURES[resizer], rtol=0, atol=2e-3)


def test_logits_and_spatial_features_are_torch_fidelitys(network: InceptionV3) -> None:
    seen = extractor(network)(drawn_pixels(2, 3, 24, 40))
    assert seen.logits is not None
    assert seen.spatial is not None
    assert (seen.logits.shape, seen.spatial.shape) == ((2, 1008), (2, 7 * 17 * 17))
    np.testing.assert_allclose(seen.logits[:, 5::200], LOGITS, rtol=0, atol=2e-3)
    np.testing.assert_allclose(seen.spatial[:, 5::256], SPATIAL, rtol=0, atol=2e-3)


def test_many_images_are_seen_a_few_at_once(network: InceptionV3) -> None:
    images = drawn_pixels(11, 1, 16, 16)
    seen = extractor(network)(images)
    alone = extractor(network)(images[10:])
    assert seen.features.shape == (11, 2048)
    np.testing.assert_allclose(seen.features[10:], alone.features, rtol=0, atol=2e-3)


def test_grey_is_seen_as_three_equal_channels(network: InceptionV3) -> None:
    grey = drawn_pixels(1, 1, 16, 16)
    see = extractor(network)
    one, three = see(grey), see(grey.repeat(1, 3, 1, 1))
    np.testing.assert_allclose(one.features, three.features, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 4, 8, 8)])
def test_other_numbers_of_channels_are_refused(
    network: InceptionV3, shape: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=f"{shape[1]} channels, expected 1 or 3"):
        extractor(network)(torch.zeros(shape))


def test_points_are_refused(network: InceptionV3) -> None:
    with pytest.raises(DataError, match="points of 2 numbers"):
        extractor(network)(torch.zeros(5, 2, 1, 1))


def test_key_tells_resizers_and_weights_apart(network: InceptionV3) -> None:
    made = [extractor(network, kind) for kind in RESIZERS]
    made.append(InceptionExtractor(network, "tf", sha256="1" * 64, device=CPU))
    assert len({one.key for one in made}) == 4
    assert "cpu" in made[0].key
    assert len({one.resizer for one in made}) == 3


SIZES = [(24, 40), (299, 128), (350, 600)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pytorch_resizer_is_interpolate(size: tuple[int, int]) -> None:
    images = drawn_pixels(2, 3, *size)
    expected = torch.nn.functional.interpolate(
        images, size=(299, 299), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize(images, "pytorch"), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_clean_resizer_is_pillows_bicubic_clipped(size: tuple[int, int]) -> None:
    images = drawn_pixels(2, 1, *size)
    expected = [
        np.asarray(Image.fromarray(image.numpy()).resize((299, 299), Image.Resampling.BICUBIC))
        for image in images[:, 0]
    ]
    found = resize(images, "clean")[:, 0]
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), rtol=0, atol=2e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tf_resizer_reads_a_ramp_without_half_a_pixel(size: tuple[int, int]) -> None:
    height, width = size
    down, right = np.mgrid[:height, :width].astype(np.float32)
    found = resize(torch.from_numpy(np.stack([down, right]))[None], "tf")[0]
    for axis, last in ((0, height - 1), (1, width - 1)):
        ramp = np.minimum(np.arange(299) * (last + 1) / 299, last)
        expected = np.broadcast_to(ramp if axis else ramp[:, None], (299, 299))
        np.testing.assert_allclose(found[axis], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", RESIZERS)
def test_images_of_the_networks_size_are_not_resized(kind: str) -> None:
    images = drawn_pixels(1, 3, 299, 299)
    assert resize(images, kind) is images


def test_opened_from_the_cache(weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "INCEPTION_SHA256", sha256)
    cache.mkdir(parents=True)
    (cache / INCEPTION_FILE).symlink_to(weights)
    before = torch.get_rng_state()
    opened = open_inception(resizer="clean", device=CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert sha256 in opened.key
    assert not opened.sees_classes
    assert not opened(drawn_pixels(1, 3, 8, 8)).features.requires_grad


def test_missing_weights_are_told_how_to_fetch(cache: Path) -> None:
    with pytest.raises(DataError, match=r"gan fetch inception --from FILE") as raised:
        open_inception(device=CPU)
    assert str(cache / INCEPTION_FILE) in str(raised.value)


def test_damaged_weights_are_not_opened(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / INCEPTION_FILE).write_bytes(b"damaged")
    with pytest.raises(DataError, match=f"expected {inception.INCEPTION_SHA256}"):
        open_inception(device=CPU)


def test_unknown_resizer_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'lanczos'.*tf.*clean.*pytorch"):
        open_inception(resizer="lanczos", device=CPU)


def test_weights_without_batch_counts_load(state: dict[str, Tensor], tmp_path: Path) -> None:
    kept = {name: t for name, t in state.items() if "num_batches_tracked" not in name}
    torch.save(kept, tmp_path / "weights.pth")
    loaded = load_network(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in kept.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, r"missing: 1 \['fc.bias \(1008,\)'\], unknown: 0"),
        ({"AuxLogits.fc.bias": torch.zeros(9)}, r"unknown: 1 \['AuxLogits.fc.bias \(9,\)'\]"),
        ({"fc.bias": torch.zeros(1000)}, r"unknown: 1 \['fc.bias \(1000,\)'\]"),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_other_weights_are_refused_by_name(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    changed = {name: torch.zeros(()).expand(t.shape) for name, t in state.items()}  # a small file
    torch.save({n: t for n, t in (changed | change).items() if t is not None}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        load_network(tmp_path / "w.pth")


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAYLOAD)))
        self.end_headers()
        self.wfile.write(PAYLOAD[: 1 << 20] if self.path == "/broken-off" else PAYLOAD)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its address."""
    with (
        pytest.MonkeyPatch.context() as patch,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as served,
    ):
        patch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_fetched_from_a_file_and_then_there(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "by-hand.pth"
    source.write_bytes(PAYLOAD)
    place = fetch_inception(source, sha256=PAYLOAD_SHA256)
    assert place == cache / INCEPTION_FILE
    assert place.read_bytes() == PAYLOAD
    source.unlink()
    assert fetch_inception(source, sha256=PAYLOAD_SHA256) == place
    assert list(cache.iterdir()) == [place]


def test_fetched_from_a_server_with_progress(cache: Path, server: str) -> None:
    steps: list[tuple[int, int]] = []
    place = fetch_inception(
        url=f"{server}/weights",
        sha256=PAYLOAD_SHA256,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert place.read_bytes() == PAYLOAD
    assert steps[0] == (1 << 20, len(PAYLOAD))
    assert steps[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert list(cache.iterdir()) == [place]


def test_another_file_is_refused_and_what_was_there_stays(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "another.pth"
    source.write_bytes(b"another")
    cache.mkdir(parents=True)
    (cache / INCEPTION_FILE).write_bytes(b"was there")
    found = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(DataError, match=f"another.pth: sha256 {found}, expected {PAYLOAD_SHA256}"):
        fetch_inception(source, sha256=PAYLOAD_SHA256)
    assert [path.read_bytes() for path in cache.iterdir()] == [b"was there"]


@pytest.mark.parametrize(
    ("path", "message"), [("missing", "404"), ("broken-off", r"1511424 more expected")]
)
def test_failed_download_leaves_nothing_behind(
    cache: Path, server: str, path: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"{message}.*gan fetch inception --from FILE"):
        fetch_inception(url=f"{server}/{path}", sha256=PAYLOAD_SHA256)
    assert list(cache.iterdir()) == []


def test_unreachable_server_is_told_with_the_way_round(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot be downloaded.*--from FILE"):
        fetch_inception(url=f"http://127.0.0.1:{port}/weights")
    assert list(cache.iterdir()) == []


def test_interrupted_download_leaves_nothing_behind(cache: Path, server: str) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_inception(url=f"{server}/weights", sha256=PAYLOAD_SHA256, progress=interrupt)
    assert list(cache.iterdir()) == []


def test_source_that_is_not_there_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^\S*absent.pth: no such file"):
        fetch_inception(tmp_path / "absent.pth")


def test_cache_that_cannot_be_written_is_named(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file where a folder should be")
    (tmp_path / "by-hand.pth").write_bytes(PAYLOAD)
    with pytest.raises(DataError, match=f"{INCEPTION_FILE}: cannot be written"):
        fetch_inception(tmp_path / "by-hand.pth", sha256=PAYLOAD_SHA256)
