import json
from pathlib import Path

from ganinfer.bundle.archive import Bundle


def test_the_bundle_holds_what_the_design_says(bundle: Path) -> None:
    with Bundle(bundle) as opened:
        manifest = opened.manifest
        assert set(manifest.files) == {
            "onnx/fp32.onnx",
            "onnx/fp16.onnx",
            "golden/images.npy",
            "parity.json",
            "preview.png",
            "witness/moments.f64",
            "witness/extractor.onnx",
        }
        parity = json.loads(opened.read("parity.json"))
    assert manifest.verified
    assert manifest.source.ema
    assert manifest.model.classes == ["0", "1", "2"]
    assert parity["num_images_distributional"] == 1000
    assert parity["extractor"] == "classifier"
    assert len(parity["gates"]) == len(manifest.parity) == 19
