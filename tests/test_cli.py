"""The gan command as a user meets it: in a process of its own."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import GAN, rewrite_manifest, tiny_recipe
from PIL import Image
from pydantic import BaseModel, field_serializer

from ganexport.cli.gan import main
from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.bundle.manifest import gate_result
from ganinfer.cli.console import console
from ganinfer.cli.tables import show_gates
from ganinfer.errors import Ending
from gantrain.runs.checkpoint import load_checkpoint


def write_toml(path: Path, tree: dict, prefix: str = "") -> Path:
    """Enough of a TOML writer for a recipe."""
    lines: list[str] = []

    def section(header: str, name: str, table: dict) -> None:
        lines.append(header)
        tables = {k: v for k, v in table.items() if isinstance(v, dict)}
        arrays = {k: v for k, v in table.items() if isinstance(v, list) and isinstance(v[0], dict)}
        for key, value in table.items():
            if key not in tables and key not in arrays:
                lines.append(f"{key} = {json.dumps(value)}")
        for key, value in tables.items():
            inner = f"{name}.{key}".lstrip(".")
            section(f"[{inner}]", inner, value)
        for key, values in arrays.items():
            for value in values:
                section(f"[[{key}]]", key, value)

    section(f"[{prefix}]" if prefix else "", prefix, tree)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def config(shapes: Path, tmp_path: Path) -> Path:
    return write_toml(tmp_path / "tiny.toml", tiny_recipe(shapes, total_kimg=0.4))


def assert_a_users_mistake(result: subprocess.CompletedProcess[str], *words: str) -> None:
    output = result.stdout + result.stderr
    assert result.returncode in set(Ending) - {Ending.DONE, Ending.INTERRUPTED}, output
    assert "Traceback" not in output
    for word in words:
        assert word in " ".join(output.split()), output


def test_help_names_every_command_and_needs_no_torch(gan) -> None:
    output = gan("--help").stdout
    for command in (
        "prepare",
        "train",
        "runs",
        "evaluate",
        "report",
        "statistics",
        "fetch",
        "export",
        "verify",
        "sample",
        "interpolate",
        "truncations",
        "styles",
        "bench",
        "inspect",
        "keygen",
        "sign",
        "push",
        "demo",
    ):
        assert command in output
    code = "import sys, ganexport.cli.gan; print({'torch', 'pydantic', 'onnx'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_help_shows_examples_and_no_type_of_a_flag(gan) -> None:
    output = gan("verify", "--help").stdout
    assert "gan verify digits.gan" in output
    assert "<bool>" not in output + gan("--help").stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gan train dcgan-d", {"dcgan-digits"}),
        ("gan evaluate run --metrics fid,k", {"fid,kid"}),
        ("gan export --from stylegan3", {"stylegan3"}),
        ("gan sample {bundle} --backend openv", {"openvino"}),
        ("gan verify {bundle} --require openv", {"openvino"}),
        ("gan sample {bundle} --precision ", {"fp32", "fp16"}),
        ("gan sample {bundle} --labels 0,", {"0,0", "0,1", "0,2"}),
    ],
)
def test_a_shell_completes_names(bundle: Path, line: str, offered: set[str]) -> None:
    words = line.format(bundle=bundle)
    asked = {"_GAN_COMPLETE": "complete_bash", "COMP_WORDS": words}
    command = "import sys; sys.argv[0] = 'gan'; from ganexport.cli.gan import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, **asked, "COMP_CWORD": str(words.count(" "))},
        capture_output=True,
        text=True,
    )
    assert set(found.stdout.split()) == offered, found.stderr


def test_the_road(gan, config: Path, tmp_path: Path, shapes: Path) -> None:
    for arguments in (
        ("train", config, "-o", "run"),
        ("evaluate", "run", "--num", 200, "-o", "scores.json"),
        ("export", "run", "-o", "x.gan", "--num", 1000, "--single-file"),
        ("verify", "x.gan"),
        ("inspect", "x.gan", "--html", "graph.html"),
        ("evaluate", "x.gan", "--num", 200, "--metrics", "fid"),
        ("evaluate", "run", "--num", 50, "--sweep", "truncation=0.5:1:0.5", "-o", "sweep.json"),
        ("report", "run", "--num", 50, "--bundle", "x.gan", "-o", "report.html"),
        (
            "sample",
            "x.gan",
            "--seeds",
            "0-8",
            "--labels",
            "1",
            "--truncation",
            "0.7",
            "-o",
            "g.png",
        ),
        ("sample", "x.gan", "--seeds", "3,7-9", "-o", "pictures"),
    ):
        result = gan(*arguments, cwd=tmp_path)
        assert result.returncode == 0, (arguments, result.stdout + result.stderr)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["num_images"] == 200
    assert {"fid", "label_accuracy"} <= scores["scores"].keys()
    swept = json.loads((tmp_path / "sweep.json").read_text())
    assert [record["truncation"] for record in swept] == [0.5, 1.0]
    assert "recall" in (tmp_path / "sweep.svg").read_text()
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"{seed:08d}.png" for seed in (3, 7, 8, 9)]
    with Sampler(tmp_path / "x.gan") as sampler:
        expected = sampler.sample(seeds=[7])[0]
    with Image.open(tmp_path / "pictures" / "00000007.png") as picture:
        assert np.array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.bach_size=3", ["there is no key 'bach_size'", "did you mean 'batch_size'"]),
        ("data.path=nowhere", ["nowhere: no prepared dataset", "gan prepare"]),
        ("train.device=cuda:63", ["'cuda:63' is not there"]),
        ("model.generator.width=wide", ["found 'wide'", "valid integer"]),
    ],
)
def test_a_mistake_in_a_config_leaves_nothing(gan, config, tmp_path, override, words) -> None:
    result = gan("train", config, "-o", tmp_path / "run", "--set", override)
    assert_a_users_mistake(result, *words)
    assert not (tmp_path / "run").exists()


def test_a_label_outside_the_classes_is_a_message(gan, config, shapes, tmp_path) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "bad"))
    labels = np.load(folder / "labels.npy")
    labels[5] = 12
    np.save(folder / "labels.npy", labels)
    result = gan("train", config, "-o", tmp_path / "run", "--set", f"data.path={folder}")
    assert_a_users_mistake(result, "label 12 of image 5", "3 classes, 0 to 2")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "no-such-recipe"), ["no such config", "dcgan-digits"]),
        (("prepare", "nowhere", "out"), ["nowhere: no such file or folder"]),
        (("prepare", "digits", "out", "--resolution", "2"), ["resolution 2", "4 to 4096"]),
        (("prepare", "digits", "out", "--resolution", "big"), ["--resolution"]),
        (("evaluate", "nowhere"), ["nowhere: nothing there", "a run, a bundle"]),
        (("evaluate", "nowhere", "--precision", "fp8"), ["nowhere: nothing there"]),
        (("evaluate", "nowhere", "-o", "/dev/null/x"), ["/dev/null/x: cannot be written"]),
        (("train", "."), [".: is a folder", "--set data.path=."]),
        (("evaluate", "nowhere", "--sweep", "psi=1"), ["--sweep psi=1", "FIRST:LAST:STEP"]),
        (("evaluate", "nowhere", "--metrics", "fit"), ["no 'fit'", "did you mean 'fid'"]),
        (("report", "nowhere"), ["nowhere: no checkpoint there"]),
        (("statistics", "nowhere", "-o", "x.npz"), ["nowhere: nothing there"]),
        (("fetch", "vgg"), ["there is no 'vgg'", "inception"]),
        (("fetch", "inception", "--from", "nowhere"), ["nowhere"]),
        (("evaluate", "x.gan"), ["x.gan: no such bundle"]),
        (("export", "nowhere", "-o", "x.gan"), ["nowhere: no checkpoint there"]),
        (("export", "nowhere"), ["--output"]),
        (("export", "-o", "x.gan"), ["expected one of RUN, --module", "--from"]),
        (("export", "run", "-o", "x.gan", "--weights", "w.pt"), ["go with --module or --from"]),
        (("export", "--module", "nowhere", "-o", "x.gan"), ["package.module:function"]),
        (("export", "--module", "json:nowhere", "-o", "x.gan"), ["json:nowhere", "importable"]),
        (("export", "--module", "json:loads", "-o", "x.gan", "--set", "z=1"), ["json:loads"]),
        (("export", "--from", "nobody", "-o", "x.gan"), ["there is no 'nobody'"]),
        (("export", ".", "-o", "x.gan", "--profile", "1:2"), ["three batch sizes"]),
        (("verify", "x.gan"), ["x.gan: no such bundle", "gan export"]),
        (("verify", "x.gan", "--precision", "fp16"), ["it goes with --layers"]),
        (("sample", "x.gan"), ["x.gan: no such bundle"]),
        (("sample", "x.gan", "--seeds", "a-b"), ["--seeds a-b", "0-63"]),
        (("sample", "x.gan", "--seeds", ""), ["--seeds", "0-63"]),
        (("sample", "x.gan", "--seeds", "5,5", "-o", "folder"), ["there twice", "x.png"]),
        (("sample", "x.gan", "-o", "x.jpg"), ["x.jpg", "x.png, or a folder"]),
        (("truncations", "x.gan", "-o", "x.gif"), ["x.gif", "ends in .png"]),
        (("sample", "x.gan", "--seed", "4"), ["--seed, --format", "go with -n"]),
        (("sample", "x.gan", "-n", "4", "-o", "x.png"), ["the folder -o", "leave -n out"]),
        (("sample", "x.gan", "-n", "4", "--seeds", "1"), ["the folder -o", "leave -n out"]),
        (("interpolate", "x.gan", "--seeds", "1,5", "-o", "x.gif"), ["x.gan: no such bundle"]),
        (("truncations", "x.gan", "--values", "a", "-o", "x.png"), ["--values a", "0.3,0.5,1"]),
        (("bench", "x.gan"), ["x.gan: no such bundle"]),
        (("inspect", "."), ["no manifest.json"]),
        (("verify", "x.gan", "--public-key", "k.pem"), ["k.pem: the key cannot be read"]),
        (("sign", "x.gan", "--key", "k.pem"), ["k.pem: the key cannot be read"]),
        (("frobnicate",), ["No such command"]),
    ],
)
def test_a_mistake_is_a_message(tmp_path: Path, monkeypatch, capsys, arguments, words) -> None:
    """Here in the tests' own process, as there are so many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    result = subprocess.CompletedProcess("gan", int(left.value.code or 0), *capsys.readouterr())
    assert_a_users_mistake(result, *words)
    assert os.listdir(tmp_path) == []


def test_an_interruption_of_the_imports_is_a_line() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["gan"].partition(":")
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        f"from {module} import {function}; {function}()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interruption_that_pydantic_wraps_is_one(monkeypatch) -> None:
    class Record(BaseModel):
        count: int = 1

        @field_serializer("count")
        def interrupted(self, count: int) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr("ganexport.cli.gan.app", Record().model_dump_json)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == Ending.INTERRUPTED


def damage(bundle: Path) -> None:
    (bundle / "golden/images.npy").write_bytes(b"cut off")


def change_golden_images(bundle: Path) -> None:
    path = bundle / "golden/images.npy"
    np.save(path, 255 - np.load(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_manifest(bundle, lambda m: m["files"]["golden/images.npy"].update(sha256=digest))


def say_unverified(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda m: m.update(verified=False))


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (("sample", "{good}", "--seeds", "x"), Ending.USAGE),
        (("export", "-o", "x.gan"), Ending.USAGE),
        (("train", "dcgan-digits", "--set", "train.sped=1"), Ending.USAGE),
        (("prepare", "digits", "x", "--split", "all"), Ending.USAGE),
        (("sample", "nowhere.gan"), Ending.MISSING),
        (("train", "nowhere.toml"), Ending.MISSING),
        (("prepare", "nowhere", "x"), Ending.MISSING),
        (("runs", "nowhere"), Ending.MISSING),
        (("fetch", "inception", "--from", "nowhere"), Ending.MISSING),
        (("report", "nowhere"), Ending.MISSING),
        (("evaluate", "nowhere"), Ending.MISSING),
        (("sample", "{damaged}"), Ending.DAMAGED),
        (("inspect", "{damaged}"), Ending.DAMAGED),
        (("verify", "{other}"), Ending.PARITY),
        (("sample", "{other}"), Ending.PARITY),
        (("sample", "{good}", "--backend", "tensorrt"), Ending.UNAVAILABLE),
        (("verify", "{good}", "--require", "tensorrt"), Ending.UNAVAILABLE),
        (("sample", "{unverified}"), Ending.UNVERIFIED),
        (("verify", "{unverified}"), Ending.UNVERIFIED),
        (("verify", "{good}"), Ending.DONE),
    ],
)
def test_a_command_ends_by_what_went_wrong(
    gan, bundle: Path, tmp_path: Path, arguments: tuple[str, ...], ending: Ending
) -> None:
    makers = {"damaged": damage, "other": change_golden_images, "unverified": say_unverified}
    for name, make in makers.items():
        if f"{{{name}}}" in arguments:
            make(Path(shutil.copytree(bundle, tmp_path / f"{name}.gan")))
    places = {name: str(tmp_path / f"{name}.gan") for name in makers}
    given = [argument.format(good=bundle, **places) for argument in arguments]
    result = gan(*given, cwd=tmp_path)
    assert result.returncode == ending, result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_verdict_is_written_for_machines(gan, bundle: Path, tmp_path: Path) -> None:
    assert gan("verify", bundle, "--json", tmp_path / "verdict.json").returncode == 0
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["passed"] is True
    assert {"gate", "value", "limit", "num_images", "low", "high"} <= verdict["gates"][0].keys()


def test_verify_refuses_a_backend_that_nothing_in_the_bundle_is_for(gan, bundle: Path) -> None:
    result = gan("verify", bundle, "--backend", "tensorrt")
    assert result.returncode == Ending.UNAVAILABLE
    assert "holds nothing that tensorrt runs" in result.stderr
    assert "good" not in result.stdout


def test_a_measured_and_tuned_bundle_opens_as_it_was_tuned(
    gan, bundle: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ("--backend", "onnxruntime", "--precision", "fp16", "--seconds", 0.02, "--tune")
    files = ("--json", tmp_path / "speed.json", "--plot", tmp_path / "speed.svg")
    result = gan("bench", bundle, *options, *files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "tuned: onnxruntime fp16 on cpu" in result.stdout
    assert re.search(r"PSNR to torch \d+\.\d dB", result.stdout)
    assert json.loads((tmp_path / "speed.json").read_text())["measured"][0]["precision"] == "fp16"
    assert "onnxruntime fp16" in (tmp_path / "speed.svg").read_text()
    # The next program's choice: within this one a seed's image stays what it was.
    code = "import sys, ganinfer; print(ganinfer.Sampler(sys.argv[1]).info['reason'])"
    opened = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True)
    assert opened.stdout.startswith("tuned on this host"), opened.stderr


def test_layers_are_printed_in_the_order_of_the_graph(gan, bundle: Path) -> None:
    pytest.importorskip("polygraphy")
    lines = gan("verify", bundle, "--layers").stdout.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert names.index("project") < names.index("ups.0") < names.index("to_image")
    assert lines[-2] == "no layer departs: none lies below 55 dB over 16 golden images"
    assert not [line for line in lines if line.startswith("[")]  # polygraphy's own log


@pytest.mark.parametrize("columns", [80, 60])
def test_the_table_of_gates_fits_a_terminal_and_long_reasons_stand_below(
    columns, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(console, "_width", columns)
    reason = "not run here: " + "the engine is for another GPU; " * 9
    gates = [
        gate_result(
            "tensorrt_rtx portable fp16",
            "alone and in a batch, dB",
            1.234e-05,
            "<= 0.00101",
            False,
            reason,
            num_images=10_000,
            interval=(1.23e-05, 0.000234),
        )
    ]
    show_gates(gates)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(reason)
    assert all(len(line.rstrip()) <= columns for line in lines[:-1])
    words = ["FAIL", "alone and in a batch, dB", "10,000", "1.234e-05", "<= 0.00101"]
    assert all(word in lines[-2] for word in words)
    assert ("1.23e-05\u20130.000234" in lines[-2]) == (columns == 80)


def test_labels_by_name_and_range(gan, bundle: Path, tmp_path: Path) -> None:
    assert gan("sample", bundle, "--labels", "0-2", "-o", tmp_path / "a.png").returncode == 0
    result = gan("sample", bundle, "--labels", "dog", "-o", tmp_path / "b.png")
    assert_a_users_mistake(result, "label 'dog'", "it takes 0, 1, 2")
    assert os.listdir(tmp_path) == ["a.png"]


def test_shards_go_on_after_an_interruption(gan, bundle: Path, tmp_path: Path) -> None:
    command = ["sample", bundle, "-n", "200000", "-o", "shards", "--shard-size", "100"]
    process = subprocess.Popen(
        [*GAN, *map(str, command)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "shards" / "shard-000001.tar").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in output
    assert not list((tmp_path / "shards").glob(".*"))
    result = gan(*command, "--labels", "1", cwd=tmp_path)
    assert_a_users_mistake(result, "another request: labels None, now [1]")


def test_a_film_and_a_sheet_of_truncations(gan, bundle: Path, tmp_path: Path) -> None:
    film = ("--seeds", "1,5", "--frames", "3", "--loop", "--labels", "0,2", "-o", "new/x.webp")
    assert gan("interpolate", bundle, *film, cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "new" / "x.webp") as picture:
        assert picture.n_frames == 6
    sheet = ("--seeds", "0-4", "--values", "0.5,1", "--labels", "1", "-o", "new/x.png")
    assert gan("truncations", bundle, *sheet, cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.size == (5 * 50 + 2, 2 * 50 + 2)


def test_a_sheet_of_mixed_styles_and_a_film_in_w(gan, styled: Exported, tmp_path: Path) -> None:
    sheet = ("--rows", "0-1", "--columns", "4-6", "--places", "0-2", "--label", "fox")
    assert gan("styles", styled.path, *sheet, "-o", "new/x.png", cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "new" / "x.png") as picture:
        assert picture.size == (4 * 50 + 2, 3 * 50 + 2)
    film = ("--seeds", "1,5", "--frames", "3", "--space", "w", "-o", "x.webp")
    assert gan("interpolate", styled.path, *film, cwd=tmp_path).returncode == 0
    result = gan("styles", styled.path, "--places", "6", "-o", "x.png", cwd=tmp_path)
    assert_a_users_mistake(result, "places: found 6; expected 0 to 5")


def test_a_lack_of_memory_is_a_message(gan, config: Path, tmp_path: Path) -> None:
    wide = ("--dry-run", "--set", "model.generator.width=100000000000")
    result = gan("train", config, *wide, cwd=tmp_path)
    assert_a_users_mistake(result, "error: out of memory", "train.microbatch_size")
    assert result.returncode == Ending.FAILED


def test_a_changed_file_is_named_by_verify(gan, bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    data = bytearray((folder / "onnx" / "fp32.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "onnx" / "fp32.onnx").write_bytes(data)
    assert_a_users_mistake(
        gan("verify", folder), "onnx/fp32.onnx: found sha256", "Copy the bundle again"
    )


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 300 kB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(path)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_stops_training_by_name_and_keeps_the_last_good_checkpoint(
    gan, config, small_disk
) -> None:
    """There is room for one checkpoint, and none for the second beside it."""
    run = small_disk / "run"
    often = ("--set", "train.checkpoint_kimg=0.4", "--set", "train.trackers=[]")
    result = gan("train", config, "-o", run, *often, "--set", "train.total_kimg=40")
    second = run / "checkpoints/000000000800.safetensors"
    assert_a_users_mistake(result, f"{second}: No space left on device", "free some space")
    assert not [path for path in run.rglob(".*") if path.is_file()], "half-written files are left"
    (kept,) = (run / "checkpoints").iterdir()
    assert load_checkpoint(kept)["images_seen"] == 400


def test_a_full_disk_stops_preparation_with_a_message(gan, small_disk) -> None:
    result = gan("prepare", "digits", small_disk / "data", "--resolution", 32)
    assert_a_users_mistake(result, "No space left on device")
    assert os.listdir(small_disk) == []


def test_a_full_disk_stops_export_with_a_message(gan, run: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 250_000)
    result = gan("export", run, "-o", small_disk / "x.gan", "--no-verify")
    assert_a_users_mistake(result, "No space left on device")
    assert os.listdir(small_disk) == ["filler"]
