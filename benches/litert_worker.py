"""The LiteRT side of `benches/compare.py litert`: a transformer of SmolLM2-135M's shapes with int8 weights, one scale per output channel.

Each line `prefill FILE TOKENS` is answered with the seconds of processor time that reading TOKENS tokens takes, and 0. The weights are random: integers take their time
whatever they are. The head is left out, as only the last token needs it. Rotations are tables, keys and values are shared by three heads, as in the real model.
"""

import sys
import time

import flatbuffers
import numpy
from ai_edge_litert import schema_py_generated as tfl
from ai_edge_litert.interpreter import Interpreter

LAYERS, WIDTH, HEADS, SHARED, HEAD, INNER = 30, 576, 9, 3, 64, 1536
# The operators with their version and their options.
VERSIONS = {"FULLY_CONNECTED": 5, "BATCH_MATMUL": 1, "SLICE": 1, "TRANSPOSE": 1}


class Graph:
    def __init__(self):
        self.graph, self.buffers, self.codes = tfl.SubGraphT(), [tfl.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.random = numpy.random.default_rng(0)

    def tensor(self, shape, kind=tfl.TensorType.FLOAT32, data=None):
        made = tfl.TensorT()
        made.shape, made.type, made.buffer, made.name = list(shape), kind, 0, f"t{len(self.graph.tensors)}"
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = numpy.frombuffer(data.tobytes(), dtype=numpy.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def floats(self, data):
        return self.tensor(data.shape, data=data.astype(numpy.float32))

    def ints(self, *data):
        return self.tensor([len(data)], tfl.TensorType.INT32, numpy.array(data, dtype=numpy.int32))

    def shape(self, tensor):
        return self.graph.tensors[tensor].shape

    def op(self, name, inputs, shape, options=None, **fields):
        if name not in self.codes:
            self.codes.append(name)
        made, y = tfl.OperatorT(), self.tensor(shape)
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(name), inputs, [y]
        if options:
            made.builtinOptionsType, made.builtinOptions = getattr(tfl.BuiltinOptions, options), getattr(tfl, options + "T")()
            for field, value in fields.items():
                setattr(made.builtinOptions, field, value)
        self.graph.operators.append(made)
        return y

    def mul(self, a, b):
        return self.op("MUL", [a, b], self.shape(a), "MulOptions")

    def add(self, a, b):
        return self.op("ADD", [a, b], self.shape(a), "AddOptions")

    def linear(self, x, outputs):
        rows, inputs = self.shape(x)
        weights = self.tensor((outputs, inputs), tfl.TensorType.INT8, self.random.integers(-127, 128, (outputs, inputs), dtype=numpy.int8))
        made = self.graph.tensors[weights].quantization = tfl.QuantizationParametersT()
        made.scale, made.zeroPoint, made.quantizedDimension = [0.5 / inputs] * outputs, [0] * outputs, 0
        return self.op("FULLY_CONNECTED", [x, weights, -1], (rows, outputs), "FullyConnectedOptions")

    def norm(self, x):
        rows, width = self.shape(x)
        mean = self.op("MEAN", [self.mul(x, x), self.ints(1)], (rows, 1), "ReducerOptions", keepDims=True)
        scale = self.op("RSQRT", [self.add(mean, self.floats(numpy.full((1, 1), 1e-5)))], (rows, 1))
        return self.mul(self.mul(x, scale), self.floats(numpy.ones((1, width))))

    def reshape(self, x, *shape):
        return self.op("RESHAPE", [x, self.ints(*shape)], shape, "ReshapeOptions", newShape=list(shape))

    def heads_first(self, x, heads):
        """(T, heads · HEAD) → (heads, T, HEAD)"""
        rows = self.shape(x)[0]
        return self.op("TRANSPOSE", [self.reshape(x, rows, heads, HEAD), self.ints(1, 0, 2)], (heads, rows, HEAD), "TransposeOptions")

    def rotated(self, x, cos, sin):
        heads, rows, half = *self.shape(x)[:2], HEAD // 2
        part = lambda first: self.op("SLICE", [x, self.ints(0, 0, first), self.ints(heads, rows, half)], (heads, rows, half), "SliceOptions")
        turned = self.op("CONCATENATION", [part(half), part(0)], (heads, rows, HEAD), "ConcatenationOptions", axis=2)
        return self.add(self.mul(x, cos), self.mul(turned, sin))

    def attention(self, x, tables, mask):
        rows, group = self.shape(x)[0], HEADS // SHARED
        q = self.rotated(self.heads_first(self.linear(x, WIDTH), HEADS), *tables)
        k = self.rotated(self.heads_first(self.linear(x, SHARED * HEAD), SHARED), *tables)
        v = self.heads_first(self.linear(x, SHARED * HEAD), SHARED)
        q = self.reshape(self.mul(q, self.floats(numpy.full((1, 1, 1), HEAD**-0.5))), SHARED, group * rows, HEAD)
        scores = self.op("BATCH_MATMUL", [q, k], (SHARED, group * rows, rows), "BatchMatMulOptions", adjY=True)
        weights = self.op("SOFTMAX", [self.add(scores, mask)], self.shape(scores), "SoftmaxOptions", beta=1.0)
        mixed = self.op("BATCH_MATMUL", [weights, v], (SHARED, group * rows, HEAD), "BatchMatMulOptions")
        mixed = self.op("TRANSPOSE", [self.reshape(mixed, HEADS, rows, HEAD), self.ints(1, 0, 2)], (rows, HEADS, HEAD), "TransposeOptions")
        return self.linear(self.reshape(mixed, rows, WIDTH), WIDTH)

    def unit(self, x):
        gate = self.linear(x, INNER)
        gate = self.mul(gate, self.op("LOGISTIC", [gate], self.shape(gate)))
        return self.linear(self.mul(gate, self.linear(x, INNER)), WIDTH)

    def model(self, tokens):
        angles = numpy.arange(tokens)[:, None] * 1e5 ** (-numpy.arange(HEAD // 2)[None, :] / (HEAD // 2))
        cos, sin = numpy.cos(angles), numpy.sin(angles)
        tables = [self.floats(numpy.concatenate(halves, axis=1)[None]) for halves in ((cos, cos), (-sin, sin))]
        mask = self.floats(numpy.tile(numpy.triu(numpy.full((tokens, tokens), -1e9), 1), (HEADS // SHARED, 1))[None])
        x = self.tensor((tokens, WIDTH))
        self.graph.inputs = [x]
        for _ in range(LAYERS):
            x = self.add(x, self.attention(self.norm(x), tables, mask))
            x = self.add(x, self.unit(self.norm(x)))
        self.graph.outputs = [self.norm(x)]
        whole = tfl.ModelT()
        whole.version, whole.subgraphs, whole.buffers, whole.operatorCodes = 3, [self.graph], self.buffers, []
        for name in self.codes:
            code = tfl.OperatorCodeT()
            code.builtinCode = getattr(tfl.BuiltinOperator, name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), VERSIONS.get(name, 1)
            whole.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(whole.Pack(builder), b"TFL3")
        return bytes(builder.Output())


interpreters = {}
for line in sys.stdin:
    tokens = int(line.split()[-1])
    if tokens not in interpreters:
        made = interpreters[tokens] = Interpreter(model_content=Graph().model(tokens), num_threads=1)
        made.allocate_tensors()
        made.set_tensor(made.get_input_details()[0]["index"], numpy.random.default_rng(1).standard_normal((tokens, WIDTH), dtype=numpy.float32))
    interpreter = interpreters[tokens]
    start = time.process_time()
    interpreter.invoke()
    seconds = time.process_time() - start
    last = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert numpy.isfinite(last).all() and numpy.abs(last).max() > 0
    print(f"{seconds:e} 0", flush=True)
