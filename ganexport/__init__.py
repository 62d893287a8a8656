"""Turning generators into ONNX and TensorRT bundles that are proven to be what was trained."""
