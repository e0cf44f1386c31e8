"""An ONNX graph that grows node by node."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """Nodes and constants so far."""

    def __init__(self) -> None:
        """An empty graph."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str | float | np.ndarray, **attributes: Any) -> str:
        """Adds a node with one output and returns its name; numbers among the inputs become constants."""
        return self.add_many(operator, *inputs, n_outputs=1, **attributes)[0]

    def add_many(self, operator: str, *inputs: str | float | np.ndarray, n_outputs: int, **attributes: Any) -> list[str]:
        """Adds a node and returns the names of its outputs."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        outputs = [f"{operator}_{len(self.nodes)}_{place}" for place in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, names, outputs, f"{operator}_{len(self.nodes)}", **attributes))
        return outputs

    def constant(self, value: float | np.ndarray) -> str:
        """Adds a constant, float32 but for shapes, and returns its name."""
        array = value if isinstance(value, np.ndarray) else np.array(value, np.float32)
        self.constants.append(numpy_helper.from_array(np.require(array, requirements="C"), f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def reshaped(self, name: str, *shape: int) -> str:
        """Another shape; 0 keeps an axis, -1 is what is left."""
        return self.add("Reshape", name, np.array(shape, np.int64))

    def parts(self, name: str) -> list[str]:
        """The real and the imaginary part along the last axis, which stays."""
        return self.add_many("Split", name, n_outputs=2, axis=-1)

    def rename(self, old: str, new: str) -> None:
        """Gives the output of the last node that made it another name."""
        node = next(node for node in reversed(self.nodes) if old in node.output)
        node.output[list(node.output).index(old)] = new
