"""Small random models of every architecture that slmops reads, made by transformers, and what transformers says to them.

usage: families.py make FOLDER              a folder for each model: config, weights (in shards and types as people publish them), tokenizer, cases.json
       families.py judge FOLDER             logits of NAME/again, which slmops wrote, against those of each original, and NAME/gradients.safetensors
                                            (of the mean cross-entropy of the first case's tokens behind the first) against autograd's;
                                            logits of NAME/cut, parts of which slmops took out, against its own in NAME/cut/cases.json

cases.json: [{"tokens": [..], "logits": [[..] a row for each token]}]. Prints one JSON object.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

COMMON = {"vocab_size": 260, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.5], "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0]}

# Name: (class, fields, how the weights are stored). Sequences are longer than every window and than the length at which a Phi-4-mini changes its pace.
MODELS = {
    "llama2": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}, "f32"),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 24, "tie_word_embeddings": True}, "bf16 shards"),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}, "f32"),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}, "f16 shards"),
    "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 24}, "mixed"),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, "bf16 shards"),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, "f32"),
    "qwen3": ("Qwen3", {"head_dim": 24, "tie_word_embeddings": False}, "mixed"),
    "gemma3": ("Gemma3", {"head_dim": 24, "sliding_window": 8, "num_hidden_layers": 7, "num_key_value_heads": 1,
                          "query_pre_attn_scalar": 24, "tie_word_embeddings": True}, "bf16 shards"),
    "gemma3-long": ("Gemma3", {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 2, "query_pre_attn_scalar": 40,
                               "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "f32"),
    "phi3": ("Phi3", {"num_key_value_heads": 4, "sliding_window": 8, "tie_word_embeddings": False}, "bf16 shards"),
    "phi4-mini": ("Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 16, "tie_word_embeddings": True}, "f32"),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "tie_word_embeddings": True}, "bf16 shards"),
    "smollm3-window": ("SmolLM3", {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 8}, "f32"),
}
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def tokenizer():
    """Bytes as tokens, the end of a text before them, three merges behind."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(sorted({*range(256)} - {*printable}))}
    vocab = {"<|endoftext|>": 0} | {letters[byte]: byte + 1 for byte in range(256)}
    merges = [["t", "h"], ["th", "e"], ["\u0120", "the"]]
    vocab |= {left + right: 257 + i for i, (left, right) in enumerate(merges)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 0, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, "added_tokens": [end],
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}}


def fill(model, kind):
    """Weights of an ordinary size, norms and biases that matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            random = torch.randn(value.shape, generator=generator)
            if name.endswith("norm.weight"):
                value.copy_(0.2 * random + (0.0 if kind == "Gemma3" else 1.0))
            elif value.dim() == 1:
                value.copy_(0.5 * random)
            else:
                value.copy_(random * (0.5 if "embed" in name else 1.5 / value.shape[-1] ** 0.5))


def store(model, folder, how):
    """Saves the model as people publish theirs."""
    if how == "mixed":
        state = {name: value.to(TYPES[i % 3]).contiguous() for i, (name, value) in enumerate(sorted(model.state_dict().items()))}
        model.config.save_pretrained(folder)
        save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    else:
        model.to({"f32": TYPES[0], "bf16": TYPES[1], "f16": TYPES[2]}[how.split()[0]])
        model.save_pretrained(folder, max_shard_size="60KB" if "shards" in how else "5GB")


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def said(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def make(folder):
    sequences = [[(7 * i * i + 3 * i + 11 * length) % 260 for i in range(length)] for length in (50, 13, 1)]
    for name, (kind, fields, how) in MODELS.items():
        path = os.path.join(folder, name)
        os.makedirs(path)
        config = getattr(transformers, "Gemma3TextConfig" if kind == "Gemma3" else kind + "Config")(**COMMON | fields)
        model = getattr(transformers, kind + "ForCausalLM")(config)
        fill(model, kind)
        store(model, path, how)
        model = load(path)
        json.dump(tokenizer(), open(os.path.join(path, "tokenizer.json"), "w"))
        json.dump({"eos_token": "<|endoftext|>"}, open(os.path.join(path, "tokenizer_config.json"), "w"))
        cases = [{"tokens": tokens, "logits": said(model, tokens).tolist()} for tokens in sequences]
        json.dump(cases, open(os.path.join(path, "cases.json"), "w"))
    return {"models": list(MODELS)}


def gradient_error(model, tokens, ours):
    """The largest difference of a tensor's gradient, relative to its size. Ours are not fused."""
    tokens = torch.tensor(tokens)
    torch.nn.functional.cross_entropy(model(tokens[None]).logits[0, :-1], tokens[1:]).backward()
    parts = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
    worst = 0.0
    for name, value in model.named_parameters():
        whole = next((whole for whole in parts if whole in name), None)
        found = torch.cat([ours[name.replace(whole, part)] for part in parts[whole]]) if whole else ours[name]
        worst = max(worst, ((found - value.grad).norm() / value.grad.norm()).item())
    return worst


def distance(model, cases):
    """The largest difference of a logit, and the largest logit."""
    worst, largest = 0.0, 0.0
    for case in json.load(open(cases)):
        logits = torch.tensor(case["logits"])
        worst = max(worst, (said(model, case["tokens"]) - logits).abs().max().item())
        largest = max(largest, logits.abs().max().item())
    return worst, largest


def judge(folder):
    found = {}
    for name in MODELS:
        path = os.path.join(folder, name)
        model = load(os.path.join(path, "again"))
        worst, largest = distance(model, os.path.join(path, "cases.json"))
        first = json.load(open(os.path.join(path, "cases.json")))[0]["tokens"]
        gradients = gradient_error(model, first, load_file(os.path.join(path, "gradients.safetensors")))
        cut = load(os.path.join(path, "cut"))
        cut_worst, cut_largest = distance(cut, os.path.join(path, "cut", "cases.json"))
        found[name] = {"class": type(model).__name__, "worst": worst, "largest": largest, "gradients": gradients,
                       "cut_class": type(cut).__name__, "cut": cut_worst / cut_largest}
    return found


command, *rest = sys.argv[1:]
print(json.dumps({"make": make, "judge": judge}[command](*rest)))
