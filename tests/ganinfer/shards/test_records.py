"""Records of earlier versions open, and what is not asked for changes none of their bytes."""

import json

from ganinfer.files import sha256_bytes
from ganinfer.shards import Finished, Index, Request

REQUEST = """{
 "format_version": 1,
 "bundle_sha256": "0453",
 "n": 1500,
 "seed": 0,
 "labels": [
  0,
  2
 ],
 "truncation": null,
 "truncation_mode": null,
 "format": "tar",
 "encoding": "png",
 "shard_size": 700
}
"""
MADE_BY = {
    "backend": "onnxruntime",
    "precision": "fp32",
    "device": "cpu",
    "processor": "x",
    "versions": {"python": "3.11.7"},
}
SHARD = {"name": "shard-000000.tar", "sha256": "5cab", "size": 1793024, "count": 700, "seed": 0}


def test_a_request_without_a_filter_is_written_as_before_there_were_any() -> None:
    request = Request.model_validate_json(REQUEST)
    assert request.json_bytes == REQUEST.encode()
    assert request.sha256 == sha256_bytes(REQUEST.encode())
    filtered = request.model_copy(update={"keep": "rejection>=80", "tries": 100})
    told = json.loads(filtered.json_bytes)
    assert {name: told[name] for name in told if name not in json.loads(REQUEST)} == {
        "keep": "rejection>=80",
        "tries": 100,
    }
    assert Request.model_validate_json(filtered.json_bytes) == filtered


def test_a_record_and_an_index_without_a_filter_are_too() -> None:
    record = {"request_sha256": "c3eb", "shard": SHARD, "made_by": MADE_BY}
    text = json.dumps(record, separators=(",", ":"))
    assert Finished.model_validate_json(text).model_dump_json() == text
    index = {
        "format_version": 2,
        "request": json.loads(REQUEST),
        "classes": ["a", "b", "c"],
        "made_by": [[MADE_BY, 3]],
        "shards": [SHARD],
    }
    text = json.dumps(index, indent=1) + "\n"
    assert Index.model_validate_json(text).json_bytes == text.encode()
