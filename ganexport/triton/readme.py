"""README.md of a model repository: what runs where, and how a client asks."""

from ganexport.triton.options import TritonOptions
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.card import plain
from ganinfer.bundle.manifest import Engine

_MAX_CLASSES = 20  # named one by one
_IMAGE = "`tritonserver:YY.MM-py3` is NVIDIA's image of NGC, by the name that you pulled it by."


def readme(name: str, bundle: Bundle, options: TritonOptions, engine: Engine | None) -> str:
    """Markdown.

    Args:
        name: of the model that clients ask.
        bundle: that it was made of.
        options: as it was made.
        engine: of backend tensorrt.
    """
    model = bundle.manifest.model
    inputs = ["| `seed` | UINT64 [N, 1] | a seed for each image |"]
    if model.classes:
        text = f"left out: each seed draws its own; {_classes(model.classes)}"
        inputs.append(f"| `label` | INT64 [N, 1] | {text} |")
        inputs.append("| `label_name` | BYTES [N, 1] | in the place of `label`: names of classes |")
    if model.truncation_modes:
        text = f"left out: none; mode {model.truncation_modes[0]}"
        inputs.append(f"| `truncation` | FP64 [N, 1] | {text} |")
    shape = ", ".join(map(str, model.shape))
    rows = "\n".join(inputs)
    return f"""# {name}

A model repository for Triton Inference Server. `gan triton` made it of the bundle with sha256
`{bundle.sha256}`.

```sh
{_docker(options)}
```

{_needs(options, engine)}

## What clients ask

Model `{name}` gives `images`, UINT8 [N, {shape}]{_png(name, options)}
At most {options.batch_size} images a request.

| input | | |
|---|---|---|
{rows}

```python
import numpy as np
import tritonclient.http as triton  # pip install "tritonclient[http]"

seeds = triton.InferInput("seed", [8, 1], "UINT64")
seeds.set_data_from_numpy(np.arange(8, dtype=np.uint64)[:, None])
answer = triton.InferenceServerClient("localhost:8000").infer("{name}", [seeds])
images = answer.as_numpy("images")  # uint8 (8, {shape})
```

Are these the bundle's images? Where the bundle lies,

```sh
gan verify {name}.gan --server http://localhost:8000 --model {name} --precision {options.precision}
```

## What runs where

| model | backend | on | what it does |
|---|---|---|---|
| `{name}` | ensemble | | hands on: it has no queue |
| `{name}_latents` | Python, NumPy alone | CPU | seeds to latents, to the bit as in `ganinfer` |
| `{name}_generator` | {options.backend}, {options.precision} | {_place(options)} | the network |
{_png_rows(name, options)}
Each merges requests into batches of up to {options.batch_size} images. A request is rejected if
{options.max_queue} wait before it, or once it has waited for {options.timeout_s:g} s.
"""


def _classes(names: list[str]) -> str:
    """The first ones by their numbers."""
    named = [f"{k} is {plain(name)}" for k, name in enumerate(names[:_MAX_CLASSES])]
    return ", ".join(named) + (", ..." if len(names) > _MAX_CLASSES else "")


def _png(name: str, options: TritonOptions) -> str:
    """The end of a sentence."""
    return f"; `{name}_png` gives `png`,\nBYTES [N, 1], of the same inputs." if options.png else "."


def _docker(options: TritonOptions) -> str:
    on_gpu = "" if options.device == "cpu" else " --gpus all"
    # onnxruntime has no option that keeps TensorRT from rounding float32.
    exact = options.backend == "onnxruntime_tensorrt" and options.precision == "fp32"
    setting = " -e NVIDIA_TF32_OVERRIDE=0" if exact else ""
    return (
        f"docker run --rm --shm-size=256m{on_gpu}{setting} \\\n"
        '  -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD":/models:ro \\\n'
        "  tritonserver:YY.MM-py3 tritonserver --model-repository=/models"
    )


def _needs(options: TritonOptions, engine: Engine | None) -> str:
    if engine is not None:
        return (
            f"{_IMAGE}\nThe plan was built by TensorRT {engine.version} for {engine.target}, on"
            f" {engine.platform}. Triton loads it with that very version alone: take"
            " the YY.MM whose release notes name it."
        )
    needs = (
        f"{_IMAGE}\nYY.MM is a release with the onnxruntime backend, 24.06 or newer. Take 26.02 or"
        " newer: some before it\nleave a request waiting for ever that a full queue rejects."
    )
    if options.device == "auto":
        needs += " Where there is no GPU, leave `--gpus all` out."
    if options.backend == "onnxruntime_tensorrt":
        needs += " TensorRT builds its engine as the server starts, which takes minutes."
    return needs


def _place(options: TritonOptions) -> str:
    places = {"auto": "GPU if there is one", "cpu": "CPU", "cuda": "GPU"}
    return f"{places[options.device]}, {options.instances} at a time"


def _png_rows(name: str, options: TritonOptions) -> str:
    if not options.png:
        return ""
    return (
        f"| `{name}_png` | ensemble | | the same, and files at the end |\n"
        f"| `{name}_packing` | Python, NumPy alone | CPU | images to files |\n"
    )
