"""Ten callers who share a Sampler while the backend fails now and then; see soak.py."""

from functools import partial

from soak import soak

from ganinfer import Sampler
from ganinfer.errors import BackendUnavailable
from gpu_day.day import Day, Skip, Values, check
from gpu_day.road import MOST_STEPS, bundle_of

NUM_CALLERS, FAULT_SHARE = 10, 1 / 50


def run(day: Day) -> None:
    for backend in ("onnxruntime", "tensorrt"):
        for precision in ("fp32", "fp16"):
            work = partial(soaked, day, backend, precision)
            day.row(f"ten callers: {backend} {precision}", work, limit_s=90)


def soaked(day: Day, backend: str, precision: str) -> Values:
    try:
        opened = Sampler(
            bundle_of(day, "digits"),
            backend=backend,
            device=day.device,
            precision=precision,
            max_queue=4096,
        )
    except BackendUnavailable as error:
        raise Skip(str(error)) from None
    with opened as sampler:
        found = soak(
            sampler,
            10 if day.on_card else 3,
            num_threads=NUM_CALLERS,
            num_tasks=0,
            fault_share=FAULT_SHARE,
            most_steps=MOST_STEPS[precision] if day.on_card else 0,
        )
    outcomes = found["outcomes"]
    return check(
        outcomes.get("right", 0) > 0 and not outcomes.get("WRONG"),
        found=", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())),
        allowed="none WRONG",
        injected=found["injected"],
        images_per_s=found["answered_per_s"],
        peak_memory_mib=found["peak_memory_mib"],
    )
