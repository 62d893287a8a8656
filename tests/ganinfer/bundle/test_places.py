import os
import pickle
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import run_python

from ganinfer import BundleError, RequestError, Sampler
from ganinfer.bundle.places import local_path, located


def test_a_path_is_itself_and_has_a_name_for_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("x.gan") == (str(tmp_path / "x.gan"), Path("x.gan"))
    assert located(Path("a") / "x.gan") == (str(tmp_path / "a/x.gan"), Path("a/x.gan"))


@pytest.mark.parametrize("name", ["a:b", "C:x.gan", "C:/x.gan", "ab:", "a b://x", "x.gan#sha256=1"])
def test_what_is_no_scheme_is_a_path(name: str) -> None:
    assert local_path(name) == Path(name)


def test_what_is_there_is_a_path_whatever_it_is_called(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data:").mkdir()
    Path("data:/x.gan").touch()
    assert local_path("data:/x.gan") == Path("data:/x.gan")
    with pytest.raises(BundleError, match="there is no nothing://"):
        local_path("nothing:/x.gan")


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "FILE://{}"])
def test_a_file_url_is_its_path(form: str, tmp_path: Path) -> None:
    place = tmp_path / "my models" / "x.gan"
    url = form.format(str(place).replace(" ", "%20"))
    assert located(url) == (str(place), place)
    assert local_path(PurePosixPath(url)) == place


def test_a_file_url_of_a_bundle_opens_it(bundle: Path) -> None:
    with Sampler(bundle.as_uri()) as sampler:
        assert sampler.sample(1).shape == (1, 16, 16, 3)


def test_an_unknown_scheme_names_those_that_work() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(BundleError) as refusal:
        Sampler("htps://host/x.gan")
    assert str(refusal.value).startswith("htps://host/x.gan: there is no htps://; expected a path")
    for scheme in ("hf://", "file://", "https://", "s3://", "gs://"):
        assert scheme in str(refusal.value)


def test_contents_give_the_images_of_their_file(single_file: Path, downloads: Path) -> None:
    data = single_file.read_bytes()
    with Sampler(single_file) as sampler:
        expected, sha256 = sampler.sample(4), sampler.sha256
    with single_file.open("rb") as file:
        for content in (data, bytearray(data), memoryview(b"x" + data)[1:], file):
            with Sampler(content) as sampler:
                assert sampler.sha256 == sha256
                np.testing.assert_array_equal(sampler.sample(4), expected)
    assert len(list(downloads.iterdir())) == 1  # one content, and nothing beside it


def test_a_file_is_read_from_where_it_stands(single_file: Path, downloads: Path) -> None:
    with (downloads.parents[2] / "two").open("w+b") as file:
        file.write(b"before" + single_file.read_bytes())
        file.seek(len(b"before"))
        assert local_path(file).read_bytes() == single_file.read_bytes()


def test_a_sampler_of_bytes_may_be_sent_to_other_processes(single_file, downloads) -> None:
    with Sampler(single_file.read_bytes()) as sampler:
        code = "import pickle, sys; s = pickle.loads(eval(sys.argv[1])); print(s.sample(1).sum())"
        (printed,) = run_python(code, repr(pickle.dumps(sampler)))
        assert int(printed) == sampler.sample(1).sum()


def test_what_is_no_bundle_and_no_place_is_refused_in_words(tmp_path, downloads) -> None:
    (tmp_path / "text").write_text("text")
    with (tmp_path / "text").open("rb") as read, (tmp_path / "text").open() as text:
        read.read()
        for given, words in [
            (b"", "0 bytes: nothing to read"),
            (read, "nothing to read.* seek"),
            (text, "read.. gives str; open the file in binary mode"),
            (None, "path None: expected a bundle"),
            (3, "path 3: expected a bundle"),
        ]:
            with pytest.raises(RequestError, match=words):
                Sampler(given)
    with pytest.raises(RequestError, match="cannot be read .*closed file"):
        Sampler(read)
    with pytest.raises(BundleError, match="^3 bytes: no bundle in one file"):
        Sampler(b"abc")
    assert not list(downloads.glob("*.gan"))


def test_a_cache_that_cannot_be_written_is_named(single_file, tmp_path, monkeypatch) -> None:
    (tmp_path / "occupied").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    with pytest.raises(BundleError, match=r"occupied/ganpipe/bundles \(.+\); .*XDG_CACHE_HOME"):
        Sampler(single_file.read_bytes())


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX'")
def test_a_full_disk_leaves_nothing_behind(single_file: Path, downloads: Path) -> None:
    code = """
import resource, sys
from ganinfer import BundleError, Sampler
data = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Sampler(data)
except BundleError as error:
    print(error)
"""
    (printed,) = run_python(code, single_file)
    assert "cannot be kept in" in printed
    assert list(downloads.iterdir()) == []
