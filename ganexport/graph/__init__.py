"""From a network to an ONNX graph, and what is done with one."""
