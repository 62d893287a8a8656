"""What torch's exporter leaves over is folded and taken out, and not one number changes.

The exporter's own `optimize=True` takes 1e-8 for 0 and 1.00001 for 1, and leaves out what it then
adds or multiplies by: among it the epsilon of a pixel norm, without which a pixel of zeros is
divided by zero. Its other rules are exact, and are applied here.
"""

import onnx_ir as ir
from onnx_ir.passes import PassManager, Sequential, common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

# All of the exporter's but add_0, sub_0, mul_by_1 and div_by_1, which compare with a tolerance.
_EXACT_RULES = (
    *("dropout_inference_rule", "dropout_zero_rule", "no_op_cast_rule", "no_op_expand_rule"),
    *("no_op_transpose_rule", "no_op_static_scatter_nd_rule", "no_op_dynamic_scatter_nd_rule"),
    *("cast_cast_rule", "reshape_reshape_rule", "flatten_to_reshape_rule", "slice_split_rule"),
    *("squeeze_reshape_1d_rule", "transpose_transpose_rule", "unsqueeze_unsqueeze_rule"),
    *("one_reshape_matmul_reshape_rule", "two_reshapes_matmul_reshape_rule"),
    *("cast_constant_of_shape_rule", "cast_constant_of_shape_without_value_rule"),
    *("collapse_slice_rule", "collapse_slice2_rule", "materialize_reshape_shape_rule"),
    *("min_min_rule", "max_max_rule", "min_max_rule", "max_min_rule"),
    *("successive_relu_rule", "successive_clip_rule"),
    *("successive_clip_relu_rule", "successive_relu_clip_rule"),
    *("normalize_pad_format_conv_rule", "fuse_pad_into_conv_rule"),
    *("fuse_batchnorm_into_conv_rule", "fuse_batchnorm_into_conv_transpose_rule"),
    *("fuse_batchnorm_into_gemm_rule", "remove_optional_bias_from_conv_rule"),
    *("remove_optional_bias_from_conv_transpose_rule", "remove_optional_bias_from_gemm_rule"),
)


class _FoldConstants(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = fold_constants(model, onnx_shape_inference=True)
        return ir.passes.PassResult(model, bool(found.modified))


def _squeeze_ones_alone(model: ir.Model) -> None:
    """Of a Squeeze that names no axes: those of size one, and not the batch, which may be one."""
    for node in list(model.graph):
        x = node.inputs[0] if node.op_type == "Squeeze" and len(node.inputs) == 1 else None
        if x is None or x.shape is None:
            continue
        ones = [n for n, size in enumerate(x.shape) if size == 1]
        if not ones:
            ir.convenience.replace_all_uses_with(node.outputs[0], x)
            continue
        axes = ir.Value(
            name=f"{node.outputs[0].name}_axes",
            shape=ir.Shape([len(ones)]),
            type=ir.TensorType(ir.DataType.INT64),
            const_value=ir.tensor(ones, dtype=ir.DataType.INT64),
        )
        model.graph.register_initializer(axes)
        node.resize_inputs(2)
        node.replace_input_with(1, axes)


def simplify(model: ir.Model) -> None:
    """Fold constants, take out what does nothing, merge what is there twice; in place."""
    _squeeze_ones_alone(model)
    # An older onnxscript lacks some of the rules; they only make a graph smaller.
    exact = [getattr(rules, name) for name in _EXACT_RULES if hasattr(rules, name)]
    once = (
        _FoldConstants(),
        RewritePass(exact),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
    )
    Sequential(
        common.InlinePass(),
        PassManager(once, steps=2, early_stop=True),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
