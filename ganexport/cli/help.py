"""What `gan COMMAND --help` shows beside the options: two examples, no types of flags."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

# As a user types them; tests/docs/test_commands.py holds that they are what the commands take.
EXAMPLES = {
    "demo": ("gan demo", "gan demo /tmp/demo --set train.total_kimg=20"),
    "doctor": ("gan doctor", "gan doctor --json"),
    "prepare": (
        "gan prepare digits data/digits --resolution 32",
        "gan prepare photos/ data/photos --resolution 64 --crop random",
    ),
    "train": (
        "gan train dcgan-digits -o runs/digits",
        "gan train my.toml --set train.batch_size=32 --dry-run",
    ),
    "runs": ("gan runs", "gan runs experiments --json runs.json"),
    "report": (
        "gan report runs/digits -o report.html --bundle digits.gan",
        "gan report runs/digits --sweep truncation=0.4:1.0:0.2 --figures figures",
    ),
    "evaluate": (
        "gan evaluate runs/digits --metrics fid,kid",
        "gan evaluate digits.gan --data data/digits --num 2000 -o scores.json",
    ),
    "compare": (
        "gan compare runs/a runs/b --num 5000",
        "gan compare old.gan new.gan --data data/digits -o compared.html",
    ),
    "statistics": (
        "gan statistics data/digits -o digits.npz",
        "gan statistics photos/ -o photos.npz --num 10000 --resizer clean",
    ),
    "fetch": ("gan fetch web", "gan fetch inception --from inception.pth"),
    "export": (
        "gan export runs/digits -o digits.gan",
        "gan export --module mynets:make --weights g.pt --set z_dim=128 -o mine.gan",
    ),
    "verify": (
        "gan verify digits.gan",
        "gan verify digits.gan --require tensorrt:fp16 --json verdict.json",
    ),
    "inspect": ("gan inspect digits.gan", "gan inspect digits.gan --html graph.html"),
    "extract": (
        "gan extract digits.gan -o digits.onnx",
        "gan extract digits.gan -o floats.onnx --pixels float --precision fp16",
    ),
    "triton": (
        "gan triton digits.gan -o models",
        "gan triton digits.gan -o models --device cuda --batch-size 64 --png",
    ),
    "web": (
        "gan web digits.gan -o digits.html",
        "gan web faces.gan -o site/ --precision fp16 --runtime node_modules/onnxruntime-web",
    ),
    "pack": (
        "gan pack digits.gan -o packed/digits.gan",
        "gan pack hf://owner/name -o name.gan",
    ),
    "unpack": (
        "gan unpack packed/digits.gan -o digits.gan",
        "gan unpack https://host/digits.gan -o digits.gan",
    ),
    "keygen": ("gan keygen signing.pem", "gan keygen keys/release.pem"),
    "sign": (
        "gan sign digits.gan --key signing.pem",
        "gan sign packed/digits.gan --key keys/release.pem",
    ),
    "push": (
        "gan push digits.gan owner/name",
        "gan push digits.gan owner/name --private --revision v2",
    ),
    "sample": (
        "gan sample digits.gan --labels 0-9 --seeds 0-99 -o grid.png",
        "gan sample digits.gan -n 50000 -o shards --format parquet",
    ),
    "interpolate": (
        "gan interpolate digits.gan --seeds 1,5,9 --loop -o film.gif",
        "gan interpolate digits.gan --seeds 1,5 --frames 10 -o strip.png",
    ),
    "truncations": (
        "gan truncations digits.gan -o truncations.png",
        "gan truncations digits.gan --seeds 0-7 --values 0.3,0.7,1 -o three.png",
    ),
    "styles": (
        "gan styles faces.gan -o mixed.png",
        "gan styles faces.gan --rows 0-3 --columns 10-17 --places 0-3 -o coarse.png",
    ),
    "bench": (
        "gan bench digits.gan --tune",
        "gan bench digits.gan --server http://localhost:8000 --json speed.json",
    ),
    "serve": (
        "gan serve digits.gan",
        "gan serve digits.gan faces=hf://owner/name --host 0.0.0.0 --workers 4 --watch",
    ),
}


def examples(name: str) -> str:
    """What stands below a command's options; Typer parts lines by empty ones."""
    return "\n\n".join(("Examples:", *EXAMPLES[name]))


class Command(TyperCommand):
    """A command whose flags have no type in their help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped_flags(super().get_params(ctx))


class Group(TyperGroup):
    """The same of `gan` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped_flags(super().get_params(ctx))


def _untyped_flags(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
