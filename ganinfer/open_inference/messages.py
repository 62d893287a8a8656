"""The messages of the Open Inference Protocol over gRPC, and of gRPC's health checks.

With Triton's extensions. A message has the fields that are read or told here; others are skipped.
"""

from typing import Any

from ganinfer.open_inference.wire import built

_NAMED = "name string 1, version string 2"
_TENSOR = "name string 1, datatype string 2, shape [int64] 3"

MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1, version string 2, extensions [string] 3",
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": "name string 1, versions [string] 2, platform string 3,"
    " inputs [TensorMetadata] 4, outputs [TensorMetadata] 5",
    "TensorMetadata": _TENSOR,
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": "config ModelConfig 1",
    "ModelConfig": "name string 1, platform string 2, max_batch_size int32 4, input [ModelInput] 5,"
    " output [ModelOutput] 6, parameters {ModelParameter} 14, backend string 17",
    "ModelInput": "name string 1, data_type DataType 2, dims [int64] 4, optional bool 8",
    "ModelOutput": "name string 1, data_type DataType 2, dims [int64] 3",
    "ModelParameter": "string_value string 1",
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": "model_stats [ModelStatistics] 1",
    "ModelStatistics": "name string 1, version string 2, last_inference uint64 3,"
    " inference_count uint64 4, execution_count uint64 5, inference_stats InferStatistics 6,"
    " batch_stats [InferBatchStatistics] 7",
    "InferStatistics": "success StatisticDuration 1, fail StatisticDuration 2,"
    " queue StatisticDuration 3, compute_input StatisticDuration 4,"
    " compute_infer StatisticDuration 5, compute_output StatisticDuration 6",
    "InferBatchStatistics": "batch_size uint64 1",
    "StatisticDuration": "count uint64 1, ns uint64 2",
    "RepositoryIndexRequest": "repository_name string 1, ready bool 2",
    "RepositoryIndexResponse": "models [ModelIndex] 1",
    "ModelIndex": "name string 1, version string 2, state string 3, reason string 4",
    "ModelInferRequest": "model_name string 1, model_version string 2, id string 3,"
    " parameters {InferParameter} 4, inputs [InferInputTensor] 5,"
    " outputs [InferRequestedOutputTensor] 6, raw_input_contents [bytes] 7",
    "InferInputTensor": _TENSOR + ", parameters {InferParameter} 4, contents InferTensorContents 5",
    "InferRequestedOutputTensor": "name string 1, parameters {InferParameter} 2",
    "InferTensorContents": "bool_contents [bool] 1, int_contents [int32] 2,"
    " int64_contents [int64] 3, uint_contents [uint32] 4, uint64_contents [uint64] 5,"
    " fp32_contents [float] 6, fp64_contents [double] 7, bytes_contents [bytes] 8",
    "InferParameter": "parameter_choice/bool_param bool 1, parameter_choice/int64_param int64 2,"
    " parameter_choice/string_param string 3, parameter_choice/double_param double 4,"
    " parameter_choice/uint64_param uint64 5",
    "ModelInferResponse": "model_name string 1, model_version string 2, id string 3,"
    " outputs [InferOutputTensor] 5, raw_output_contents [bytes] 6",
    "InferOutputTensor": _TENSOR,
    "ModelStreamInferResponse": "error_message string 1, infer_response ModelInferResponse 2",
}
ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0,
        "TYPE_UINT8": 2,
        "TYPE_UINT64": 5,
        "TYPE_INT64": 9,
        "TYPE_FP32": 11,
        "TYPE_FP64": 12,
        "TYPE_STRING": 13,
    }
}

HEALTH_MESSAGES = {
    "HealthCheckRequest": "service string 1",
    "HealthCheckResponse": "status ServingStatus 1",
}
HEALTH_ENUMS = {
    "ServingStatus": {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
}

INFERENCE_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

# Classes by the names of the messages.
inference: Any = built("inference", MESSAGES, ENUMS)
health: Any = built("grpc.health.v1", HEALTH_MESSAGES, HEALTH_ENUMS)
