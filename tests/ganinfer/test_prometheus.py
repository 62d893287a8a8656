import re
from pathlib import Path

from ganinfer import Sampler
from ganinfer.prometheus import prometheus

SAMPLE = re.compile(r'(\w+)\{bundle="([0-9a-f]{12})"(?:,quantile="([0-9.]+)")?\} ([0-9.e-]+)')


def test_every_figure_is_a_line_with_its_type_and_help(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        sampler.sample(5)
        lines = prometheus(sampler).splitlines()
        digits = sampler.sha256[:12]
    samples = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(samples)
    values = {(m[1], m[3]): float(m[4]) for m in samples if m and m[2] == digits}
    assert values["ganinfer_images_total", None] == 5
    assert values["ganinfer_requests_total", None] == 1
    assert values["ganinfer_request_seconds", "0.99"] > 0
    for kind in ("HELP", "TYPE"):
        said = [line.split()[2] for line in lines if line.startswith(f"# {kind} ")]
        assert said == list(dict.fromkeys(name for name, _ in values))
