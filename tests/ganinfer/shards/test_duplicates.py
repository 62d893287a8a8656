"""Images that look alike, found by their hashes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ganinfer import Sampler
from ganinfer.errors import RequestError
from ganinfer.shards import INDEX, Index, plan, write_shards
from ganinfer.shards.duplicates import find_duplicates, perceptual_hash
from ganinfer.shards.local import LocalFolder


@pytest.fixture(scope="module")
def sampler(bundle: Path):
    with Sampler(bundle, backend="onnxruntime", precision="fp32") as opened:
        yield opened


def waves(channels: int) -> np.ndarray:
    """Four smooth images, uint8 (4, 24, 40, channels)."""
    y, x = np.mgrid[:24, :40]
    shades = [127 + 60 * np.sin(x / (3 + k)) + 60 * np.cos(y * (k + 1) / 7) for k in range(4)]
    return np.repeat(np.array(shades, np.uint8)[..., None], channels, axis=3)


def test_a_hash_is_the_same_for_ever() -> None:
    found = [f"{hashed:016x}" for hashed in perceptual_hash(waves(1)).tolist()]
    assert found == ["1cebfb182c907e52", "ed5653d4391a1339", "938d6cada55a0a6d", "be44d64909778d66"]


def test_a_hash_sees_no_size_no_brightness_and_no_way_to_be_grey() -> None:
    expected = perceptual_hash(waves(1))
    assert len(set(expected.tolist())) == 4
    for other in (
        *(waves(channels) for channels in (2, 3, 4)),
        waves(1).repeat(2, axis=1).repeat(2, axis=2),
        waves(1) + np.uint8(5),
    ):
        assert np.array_equal(perceptual_hash(other), expected)
    assert not perceptual_hash(np.full((1, 5, 5, 3), 200, np.uint8)).any()


def test_images_that_share_a_hash_are_counted_across_shards(
    sampler: Sampler, tmp_path: Path
) -> None:
    """So far truncated, images of a class are nearly one."""
    asked = {"truncation": 0.02, "shard_size": 70, "duplicates": True}
    written = write_shards(sampler, 200, tmp_path, **asked)
    hashes = perceptual_hash(sampler.sample(200, truncation=0.02)).tolist()
    groups = {key: count for key, count in Counter(hashes).items() if count > 1}
    found = Index.model_validate_json((tmp_path / INDEX).read_bytes()).duplicates
    assert found is not None
    assert (found.images, found.groups) == (sum(groups.values()), len(groups))
    assert found.groups > 2
    assert [group.count for group in found.largest] == sorted(groups.values(), reverse=True)[:5]
    for group in found.largest:
        same = [seed for seed, key in enumerate(hashes) if f"{key:016x}" == group.hash]
        assert (group.seeds, group.count) == (same[:5], len(same))
    assert found.words in (tmp_path / "README.md").read_text()
    assert find_duplicates(LocalFolder(tmp_path), written.shards, at_once=30) == found


def test_lost_and_damaged_hashes_are_written_again(sampler: Sampler, tmp_path: Path) -> None:
    asked = {"n": 30, "folder": tmp_path, "shard_size": 10, "duplicates": True}
    write_shards(sampler, **asked)
    files = sorted(tmp_path.glob("records/*.hashes.npy"))
    before = [file.read_bytes() for file in files]
    files[0].unlink()
    files[2].write_bytes(before[1])
    written = write_shards(sampler, **asked, check="sha256")
    assert written.damaged == ["shard-000000.tar", "shard-000002.tar"]
    assert [file.read_bytes() for file in files] == before
    assert plan(sampler, 30, shard_size=10, duplicates=True).missing(tmp_path) == []
    with pytest.raises(RequestError, match="duplicates 'phash', now None"):
        write_shards(sampler, **{**asked, "duplicates": False})
