"""Operators supported by TensorRT's ONNX parser: onnx-tensorrt's table for TensorRT 10.15 (``docs/operators.md``)."""

from __future__ import annotations

from typing import Final

import onnx

from dimml.errors import BundleError

_NAMES: Final = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow
Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv
DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization
GRU HammingWindow HannWindow Hardmax HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool LRN LSTM MatMul Max MaxPool
Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu
QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RMSNormalization RNN RoiAlign RotaryEmbedding Round Scan ScatterElements ScatterND Selu Shape Shrink
Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze STFT Sub Sum Tan Tanh
ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
#: ONNX operators marked as supported. The parser itself reports restrictions of some (constant axes, shapes).
SUPPORTED: Final = frozenset(_NAMES.split())


def check_operators(model: onnx.ModelProto) -> None:
    """Raise BundleError naming the first node whose operator TensorRT's parser does not support."""
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            operator = f"{node.domain}.{node.op_type}".lstrip(".")
            raise BundleError(
                f"{model.graph.name}: TensorRT's ONNX parser has no operator {operator} (node {node.name!r}); export "
                "without --tensorrt plan, or change the encoder",
                field=model.graph.name,
            )
