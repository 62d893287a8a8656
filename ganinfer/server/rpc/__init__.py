"""The Open Inference Protocol, version 2, over gRPC, and gRPC's own health checks."""
