"""Engines: an ONNX file compiled ahead of time for one kind of device."""
