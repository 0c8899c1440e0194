"""What TensorRT made of a graph, read from its own list of layers: precision and fusion.

The list is one message of the verbose log that begins with `Layers:`, a line a kernel for every
profile. It is the only place where a build without a GPU says what the engine will compute.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADER = "Layers:"

CONVOLUTIONS = frozenset({"correlation", "convolution", "caskconvolution", "deconvolution"})
PRODUCTS = frozenset({"gemm", "matrix_multiply", "matmul", "fully_connected"})

_NAME = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+),")
_LIST = re.compile(r"\b(?P<which>Inputs|Outputs): \[ (?P<content>\{.*?\})\](?=, )")
_TENSOR = re.compile(
    r"Name: (?P<name>[^,{}]*?), Dimensions: \[(?P<shape>[^\]]*)\].*?Datatype: (?P<dtype>\w+)"
)
_ATTENTION = re.compile(r"mha|attention_fused|_fmha", re.IGNORECASE)
_ONNX = re.compile(r"\[ONNX Layer: (?P<name>[^\]]*)\]")
_ACTIVATION = re.compile(r"^Total Activation Memory: (?P<bytes>\d+) bytes")
_WEIGHTS = re.compile(r"^Total Weights Memory: (?P<bytes>\d+) bytes")


@dataclass(frozen=True, slots=True)
class Layer:
    """A kernel: what it is, the types that it reads and writes, the ONNX nodes that it computes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def half(self) -> bool:
        """Whether it reads and writes half precision alone."""
        return {*self.inputs, *self.outputs} == {"Half"}


@dataclass(frozen=True, slots=True)
class LayerReport:
    """Counts over all profiles of an engine.

    `half_*` of `convolutions` and `products` compute in FP16; `fused_attention`: kernels that hold
    both products of an attention and its softmax; `float32_nodes`: ONNX nodes whose kernels write
    FP32, which in half precision are the islands that were meant to stay.
    """

    kernels: int
    convolutions: int
    half_convolutions: int
    products: int
    half_products: int
    fused_attention: int
    float32_tensors: int
    float32_nodes: tuple[str, ...]
    kinds: dict[str, int]


def parse_layers(message: str) -> Iterator[Layer]:
    """Layers of a message that begins with `HEADER`; other lines of it are none."""
    # Not `splitlines`: some versions put a record separator between ONNX names.
    for line in message.split("\n"):
        head = _NAME.match(line)
        if head is None:
            continue
        types = {"Inputs": list[str](), "Outputs": list[str]()}
        for part in _LIST.finditer(line):
            tensors = _TENSOR.finditer(part["content"])
            # Single numbers, as alpha and beta of a product, are FP32 whatever it computes in.
            types[part["which"]] += [t["dtype"] for t in tensors if t["shape"] != "1"]
        nodes = tuple(node["name"] for node in _ONNX.finditer(line))
        yield Layer(
            head["name"], head["type"], tuple(types["Inputs"]), tuple(types["Outputs"]), nodes
        )


def summarise(layers: Sequence[Layer]) -> LayerReport:
    """Count what matters in a list of layers."""
    convolutions = [x for x in layers if x.kind.lower() in CONVOLUTIONS]
    products = [x for x in layers if x.kind.lower() in PRODUCTS]
    single = [x for x in layers if "Float" in x.outputs]
    return LayerReport(
        kernels=len(layers),
        convolutions=len(convolutions),
        half_convolutions=sum(x.half for x in convolutions),
        products=len(products),
        half_products=sum(x.half for x in products),
        fused_attention=sum(is_fused_attention(x) for x in layers),
        float32_tensors=sum(x.outputs.count("Float") for x in layers),
        float32_nodes=tuple(sorted({node for x in single for node in x.nodes})),
        kinds=dict(sorted(Counter(x.kind for x in layers).items())),
    )


def is_fused_attention(layer: Layer) -> bool:
    """Whether one kernel computes softmax and the products around it."""
    if _ATTENTION.search(layer.name):
        return True
    softmax = any(node.endswith("Softmax") for node in layer.nodes)
    return softmax and sum("MatMul" in node.rpartition("/")[2] for node in layer.nodes) >= 2


def memory_of(messages: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    """Weights and, for every profile, activations in bytes, as the log says them."""
    weights = [int(m["bytes"]) for x in messages if (m := _WEIGHTS.match(x))]
    activations = tuple(int(m["bytes"]) for x in messages if (m := _ACTIVATION.match(x)))
    return (weights[-1] if weights else 0), activations
