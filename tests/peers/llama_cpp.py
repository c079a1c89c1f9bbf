"""Lets llama.cpp judge our GGUF files. Needs Python's standard library and llama.cpp's shared libraries, nothing else.

usage: llama_cpp.py LIBRARIES blocks FOLDER       our block formats against ggml's own
       llama_cpp.py LIBRARIES tensors FILE VALUES  every tensor of FILE, unpacked by ggml, against our f32 values behind each other
       llama_cpp.py LIBRARIES mixtures FILE SCRATCH TYPE..  the block type that llama-quantize gives each tensor of an F32 file, by type
       llama_cpp.py LIBRARIES quantize FILE OUT TYPE [IMATRIX]  FILE as llama-quantize packs it, even if it is packed already
       llama_cpp.py LIBRARIES generate FILE CASES  greedy answers; CASES: [{"prompt": text, "tokens": [..], "answer": [..]}]
       llama_cpp.py LIBRARIES perplexity FILE TEXT N_CTX  of a text, by the protocol of llama.cpp's own tool (needs numpy)
       llama_cpp.py LIBRARIES logits FILE CASES    logits after each token against ours; CASES: [{"tokens": [..], "logits": [[..] a row for each]}]
       llama_cpp.py LIBRARIES speed FILE           measures as lines of stdin ask: `prefill N`, `decode N`; the first line out is about loading

Prints one JSON object (speed: one a line). Structures of llama.cpp are taken from its own *_default_params and changed only where their start has been stable, so a
release that moves a field shows itself as a failure here and not as a wrong result.
"""

import array
import ctypes
import glob
import json
import math
import os
import sys
import time

BLOCKS = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
NAMES = {0: "F32", 1: "F16", 30: "BF16"} | {number: name for name, number in BLOCKS.items()}
SIZES = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
         10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)}
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13,
              "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18}

libraries = sys.argv[1]
pointer, i64, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t


def library(name):
    found = sorted(glob.glob(os.path.join(libraries, f"lib{name}*.so")))
    if not found:
        sys.exit(f"no lib{name}*.so in {libraries}")
    return ctypes.CDLL(found[0], mode=ctypes.RTLD_GLOBAL)


base = library("ggml-base")


def declare(owner, name, result, *arguments):
    function = getattr(owner, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def floats(count):
    values = array.array("f", bytes(4 * count))
    return values, (ctypes.c_float * count).from_buffer(values)


def unpack(number, packed, count):
    values, buffer = floats(count)
    if number == 0:
        ctypes.memmove(buffer, packed, 4 * count)
    elif number in (1, 30):
        name = "ggml_fp16_to_fp32_row" if number == 1 else "ggml_bf16_to_fp32_row"
        declare(base, name, None, pointer, pointer, i64)(packed, buffer, count)
    else:
        name = NAMES[number]
        name = "dequantize_row_" + (name[:-1].lower() + "K" if name.endswith("K") else name.lower())
        declare(base, name, None, pointer, pointer, i64)(packed, buffer, count)
    return values


def pack(number, values, columns):
    block, bytes_ = SIZES[number]
    out = ctypes.create_string_buffer(len(values) // block * bytes_)
    quantize = declare(base, "ggml_quantize_chunk", size, ctypes.c_int, pointer, pointer, i64, i64, i64, pointer)
    buffer = (ctypes.c_float * len(values)).from_buffer(values)
    assert quantize(number, buffer, out, 0, len(values) // columns, columns, None) == len(out)
    return out.raw


def error(values, others):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(values, others)) / sum(a * a for a in values))


def blocks(folder):
    read = lambda name: open(os.path.join(folder, name), "rb").read()
    values = array.array("f", read("input.f32"))
    result = {}
    for name, number in BLOCKS.items():
        ours, theirs = read(f"{name}.bin"), pack(number, values, 256)
        unpacked = unpack(number, ours, len(values))
        result[name] = {"same_bytes": ours == theirs, "same_values": unpacked.tobytes() == read(f"{name}.f32"),
                        "error": error(values, unpacked), "their_error": error(values, unpack(number, theirs, len(values)))}
    return result


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", pointer)]


def file_tensors(path):
    """(name, type, packed bytes), as ggml's own reader sees the file."""
    context = declare(base, "gguf_init_from_file", pointer, ctypes.c_char_p, InitParams)(path.encode(), InitParams(True, None))
    if not context:
        sys.exit(f"ggml refuses {path}")
    get = lambda name, result, *arguments: declare(base, name, result, pointer, *arguments)
    data = open(path, "rb").read()
    start = get("gguf_get_data_offset", size)(context)
    for i in range(get("gguf_get_n_tensors", i64)(context)):
        name = get("gguf_get_tensor_name", ctypes.c_char_p, i64)(context, i).decode()
        number = get("gguf_get_tensor_type", ctypes.c_int, i64)(context, i)
        at = start + get("gguf_get_tensor_offset", size, i64)(context, i)
        yield name, number, data[at:at + get("gguf_get_tensor_size", size, i64)(context, i)]


def tensors(path, values_path):
    ours, at, differing, count = array.array("f", open(values_path, "rb").read()), 0, [], 0
    for name, number, packed in file_tensors(path):
        block, bytes_ = SIZES[number]
        values = unpack(number, packed, len(packed) // bytes_ * block)
        if values.tobytes() != ours[at:at + len(values)].tobytes():
            differing.append(name)
        at, count = at + len(values), count + 1
    return {"tensors": count, "differing": differing, "values": at, "our_values": len(ours)}


class Opaque(ctypes.Structure):
    """Room for any parameter structure; what passes one by value reads only the part that it knows."""
    _fields_ = [("words", ctypes.c_uint64 * 64)]

    def set_i32(self, index, value):
        (ctypes.c_int32 * 128).from_buffer(self)[index] = value


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", pointer), ("embd", pointer), ("pos", pointer), ("n_seq_id", pointer),
                ("seq_id", pointer), ("logits", pointer)]


quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda level, text, data: None)


def llama():
    ggml = library("ggml.v")
    declare(ggml, "ggml_backend_load_all_from_path", None, ctypes.c_char_p)(libraries.encode())
    lib = library("llama.v")
    if "SLMOPS_PEER_LOG" not in os.environ:
        declare(lib, "llama_log_set", None, pointer, pointer)(ctypes.cast(quiet, pointer), None)
    declare(lib, "llama_backend_init", None)()
    return lib


def mixtures(path, scratch, *types):
    lib, found = llama(), {}
    run = declare(lib, "llama_model_quantize", ctypes.c_uint32, ctypes.c_char_p, ctypes.c_char_p, pointer)
    for type_ in types:
        params = declare(lib, "llama_model_quantize_default_params", Opaque)()
        params.set_i32(0, 1)
        params.set_i32(1, FILE_TYPES[type_])
        if run(path.encode(), scratch.encode(), ctypes.byref(params)) != 0:
            sys.exit(f"llama_model_quantize fails on {type_}")
        found[type_] = {name: NAMES.get(number, str(number)) for name, number, _ in file_tensors(scratch)}
    return found


class Importance(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", pointer), ("size", size)]


def importance(path):
    """What llama-quantize hands over: the mean squares of an importance matrix."""
    found = {name: packed for name, number, packed in file_tensors(path) if number == 0}
    entries, held = [], []
    for name in found:
        if name.endswith(".in_sum2"):
            count = array.array("f", found[name.replace(".in_sum2", ".counts")])[0]
            held.append(array.array("f", (value / count for value in array.array("f", found[name]))))
            entries.append((name.removesuffix(".in_sum2").encode(), held[-1].buffer_info()[0], len(held[-1])))
    return (Importance * (len(entries) + 1))(*(Importance(*entry) for entry in entries)), held


def quantize(path, out, type_, imatrix=None):
    params = declare(lib := llama(), "llama_model_quantize_default_params", Opaque)()
    params.set_i32(0, 1)
    params.set_i32(1, FILE_TYPES[type_])
    ctypes.c_bool.from_buffer(params, 16).value = True  # allow_requantize, behind four integers
    entries, held = importance(imatrix) if imatrix else (None, [])
    pointer.from_buffer(params, 24).value = ctypes.addressof(entries) if entries else None  # behind six more of its kind, aligned
    run = declare(lib, "llama_model_quantize", ctypes.c_uint32, ctypes.c_char_p, ctypes.c_char_p, pointer)
    began = time.process_time()
    if run(path.encode(), out.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama_model_quantize fails on {path}")
    return {"cpu_s": time.process_time() - began, "tensors": len(held)}


class Session:
    """A model on one thread with room for 2048 tokens; a plain one has room for 256 and keeps keys and values as they are, in F32."""

    def __init__(self, path, plain=False):
        self.lib = lib = llama()
        self.model = declare(lib, "llama_model_load_from_file", pointer, ctypes.c_char_p, Opaque)(
            path.encode(), declare(lib, "llama_model_default_params", Opaque)())
        if not self.model:
            sys.exit(f"llama.cpp refuses {path}")
        params = declare(lib, "llama_context_default_params", Opaque)()
        for index, value in enumerate([256] * 3 if plain else [2048] * 3):
            params.set_i32(index, value)
        if plain:
            # flash_attn_type off; type_k and type_v, which are F16 by default and must be found as such.
            kinds = (ctypes.c_int32 * 128).from_buffer(params)
            assert (kinds[13], kinds[26], kinds[27]) == (-1, 1, 1), "llama_context_params has moved"
            kinds[13], kinds[26], kinds[27] = 0, 0, 0
        self.context = declare(lib, "llama_init_from_model", pointer, pointer, Opaque)(self.model, params)
        declare(lib, "llama_set_n_threads", None, pointer, ctypes.c_int32, ctypes.c_int32)(self.context, 1, 1)
        self.memory = declare(lib, "llama_get_memory", pointer, pointer)(self.context)
        self._clear = declare(lib, "llama_memory_clear", None, pointer, ctypes.c_bool)
        self._one = declare(lib, "llama_batch_get_one", Batch, pointer, ctypes.c_int32)
        self._decode = declare(lib, "llama_decode", ctypes.c_int32, pointer, Batch)
        self._logits = declare(lib, "llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), pointer, ctypes.c_int32)

    def clear(self):
        self._clear(self.memory, True)

    def rows(self, tokens, vocabulary):
        """The logits of every token of a new text."""
        import numpy
        self.clear()
        batch = declare(self.lib, "llama_batch_init", Batch, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)(len(tokens), 0, 1)
        put = lambda address, kind, place, value: ctypes.cast(address, ctypes.POINTER(kind)).__setitem__(place, value)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            put(batch.token, ctypes.c_int32, i, token)
            put(batch.pos, ctypes.c_int32, i, i)
            put(batch.n_seq_id, ctypes.c_int32, i, 1)
            ctypes.cast(batch.seq_id, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))[i][0] = 0
            put(batch.logits, ctypes.c_int8, i, 1)
        if self._decode(self.context, batch) != 0:
            sys.exit("llama_decode fails")
        found = numpy.stack([numpy.ctypeslib.as_array(self._logits(self.context, i), (vocabulary,)).astype(numpy.float64) for i in range(len(tokens))])
        declare(self.lib, "llama_batch_free", None, Batch)(batch)
        return found

    def decode(self, tokens):
        """Reads tokens behind those before; the logits of the last one."""
        held = (ctypes.c_int32 * len(tokens))(*tokens)
        if self._decode(self.context, self._one(held, len(tokens))) != 0:
            sys.exit("llama_decode fails")
        return self._logits(self.context, -1)


def speed(path):
    wall, cpu = time.perf_counter(), time.process_time()
    session = Session(path)
    token = lambda i: 1000 + i * 37 % 20000
    session.decode([token(i) for i in range(16)])
    since = lambda: {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps(since()), flush=True)
    for line in sys.stdin:
        what, count = line.split()
        tokens = [token(i) for i in range(int(count))]
        session.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        for part in [tokens] if what == "prefill" else ([token] for token in tokens):
            session.decode(part)
        print(json.dumps(since()), flush=True)
    return {}


def perplexity(path, text_path, n_ctx):
    import numpy
    session, n_ctx = Session(path), int(n_ctx)
    lib, text = session.lib, open(text_path, "rb").read()
    vocab = declare(lib, "llama_model_get_vocab", pointer, pointer)(session.model)
    count = declare(lib, "llama_vocab_n_tokens", ctypes.c_int32, pointer)(vocab)
    tokenize = declare(lib, "llama_tokenize", ctypes.c_int32, pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int32,
                       ctypes.c_bool, ctypes.c_bool)
    room = (ctypes.c_int32 * (len(text) + 8))()
    tokens = list(room[:tokenize(vocab, text, len(text), room, len(room), True, False)])
    bos = declare(lib, "llama_vocab_bos", ctypes.c_int32, pointer)(vocab)
    adds = declare(lib, "llama_vocab_get_add_bos", ctypes.c_bool, pointer)(vocab)
    total, scored = 0.0, 0
    for start in range(0, len(tokens) - n_ctx + 1, n_ctx):
        window = tokens[start:start + n_ctx]
        if adds:
            window[0] = bos
        rows = session.rows(window, count)[n_ctx // 2:-1]
        targets = window[n_ctx // 2 + 1:]
        most = rows.max(axis=1)
        total += (most + numpy.log(numpy.exp(rows - most[:, None]).sum(axis=1)) - rows[numpy.arange(len(targets)), targets]).sum()
        scored += len(targets)
    return {"perplexity": math.exp(total / scored), "scored": scored}


def logits(path, cases_path):
    session = Session(path)
    worst, largest, rows = 0.0, 0.0, 0
    for case in json.load(open(cases_path)):
        session.clear()
        for token, ours in zip(case["tokens"], case["logits"]):
            theirs = session.decode([token])[:len(ours)]
            worst = max(worst, max(abs(a - b) for a, b in zip(ours, theirs)))
            largest = max(largest, max(map(abs, theirs)))
            rows += 1
    return {"worst": worst, "largest": largest, "rows": rows}


def generate(path, cases_path):
    session = Session(path)
    lib = session.lib
    vocab = declare(lib, "llama_model_get_vocab", pointer, pointer)(session.model)
    count = declare(lib, "llama_vocab_n_tokens", ctypes.c_int32, pointer)(vocab)
    is_end = declare(lib, "llama_vocab_is_eog", ctypes.c_bool, pointer, ctypes.c_int32)
    tokenize = declare(lib, "llama_tokenize", ctypes.c_int32, pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int32,
                       ctypes.c_bool, ctypes.c_bool)
    cases = json.load(open(cases_path))

    def answer(tokens, most):
        session.clear()
        given, out = list(tokens), []
        while True:
            logits = session.decode(given)[:count]
            token = max(range(count), key=lambda i: (logits[i], -i))
            if is_end(vocab, token) or len(out) == most:
                return out
            out.append(token)
            given = [token]

    same_tokens, same_answers, first = 0, 0, []
    for case in cases:
        text = case["prompt"].encode()
        room = (ctypes.c_int32 * (len(text) + 8))()
        found = list(room[:tokenize(vocab, text, len(text), room, len(room), False, True)])
        same_tokens += found == case["tokens"]
        theirs = answer(case["tokens"], case["most"])
        same_answers += theirs == case["answer"]
        if theirs != case["answer"] and len(first) < 3:
            first.append({"prompt": case["prompt"], "ours": case["answer"], "theirs": theirs})
    return {"cases": len(cases), "same_tokens": same_tokens, "same_answers": same_answers, "first_differing": first}


COMMANDS = [blocks, tensors, mixtures, quantize, generate, perplexity, logits, speed]
command, *rest = sys.argv[2:]
print(json.dumps({known.__name__: known for known in COMMANDS}[command](*rest)))
