"""Static int8: a graph's products with constant matrices in 8 bits, with scales fixed at export.

Weights are int8 with a scale for each output column. Activations are uint8 with one scale and zero point for
each product (calibration.py). A fixed scale depends on the model alone and sums of integers are exact, so a
row has the same bits alone and in any batch.
"""

import copy
from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

LARGEST = 127  # of an int8 weight; -128 is left out, so that a scale serves both signs

# Lowest and highest value of an activation that its 8 bits represent.
Range = tuple[float, float]


def products(model: onnx.ModelProto, matrices: Collection[str]) -> list[onnx.NodeProto]:
    """Return the MatMul nodes whose second operand is one of the initializers `matrices`."""
    constant = {tensor.name for tensor in model.graph.initializer} & set(matrices)
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constant]


def quantise(model: onnx.ModelProto, matrices: Collection[str], ranges: dict[str, Range]) -> onnx.ModelProto:
    """Return a copy of the graph whose products by `matrices` are in 8 bits.

    The matrices stay as they are: a node computes the int8 matrix from the float32 one, and ONNX Runtime
    folds it at load. A bias that is added to a product becomes part of it.
    """
    out = copy.deepcopy(model)
    graph = out.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chosen = {node.output[0] for node in products(model, matrices)}
    nodes: list[onnx.NodeProto] = []
    made, fused = set(), set()

    def constant(name: str, value: np.ndarray) -> str:
        if name not in made:
            made.add(name)
            graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def quantised(name: str, scale: str, zero: str, **attributes: int) -> str:
        result = f"{name}.int8"
        if result not in made:
            made.add(result)
            inputs = [name, scale, zero]
            node = helper.make_node("QuantizeLinear", inputs, [result], name=result, **attributes)
            nodes.append(node)
        return result

    for node in graph.node:
        if node.output[0] not in chosen:
            if node.output[0] not in fused:
                nodes.append(node)
            continue
        x, matrix = node.input
        low, high = min(ranges[x][0], 0.0), max(ranges[x][1], 0.0)
        step = np.float32((high - low) / 255 or 1)
        zero = constant(f"{x}.zero", np.uint8(np.clip(np.rint(-low / step), 0, 255)))
        scale = constant(f"{x}.scale", step)
        size = np.abs(values[matrix]).max(0) / np.float32(LARGEST)
        by_column = constant(f"{matrix}.scale", np.where(size > 0, size, 1).astype(np.float32))
        none = constant(f"{matrix}.zero", np.zeros(len(size), dtype=np.int8))
        inputs = [
            quantised(x, scale, zero),
            quantised(matrix, by_column, none, axis=1),
            scale,
            by_column,
            zero,
        ]
        output = node.output[0]
        after = readers.get(output, [])
        if len(after) == 1 and after[0].op_type == "Add":
            (bias,) = (name for name in after[0].input if name != output)
            if bias in values and values[bias].ndim == 1:
                inputs += ["", bias]
                output = after[0].output[0]
                fused.add(output)
        about = {"name": f"{output}.product", "domain": "com.microsoft"}
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [output], **about))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    out.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return out
