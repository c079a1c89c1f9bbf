"""Computes losses, gradients and AdamW steps of a decoder in float64 with PyTorch's autograd, and compares them with ours.

usage: torch_gradients.py FOLDER
FOLDER holds config.json, model.safetensors, case.json and what we computed: gradients.safetensors (of the first batch) and
stepped.safetensors (after the steps); with "adapter" in the case also adapter.safetensors, which then is what learns.
case.json: {"tokens": [[..] a sequence], "wanted": [[..] places], "targets": [..], "loss": .., "rates": [.. a learning rate for each step],
"beta1", "beta2", "eps", "weight_decay", "max_grad_norm", "adapter": null or {"r", "scale"}}
Prints the relative errors: of the loss, of each gradient, of each tensor after the steps, of its change.
"""

import json
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder = sys.argv[1]
case = json.load(open(f"{folder}/case.json"))
config = json.load(open(f"{folder}/config.json"))
torch.set_default_dtype(torch.float64)


def read(name):
    return {key: value.double() for key, value in load_file(f"{folder}/{name}.safetensors").items()}


weights = read("model")
adapter = read("adapter") if case["adapter"] else {}
learned = adapter or weights
for tensor in learned.values():
    tensor.requires_grad_(True)


def linear(x, name):
    y = x @ weights[f"{name}.weight"].T
    a = adapter.get(f"base_model.model.{name}.lora_A.weight")
    if a is not None:
        y = y + case["adapter"]["scale"] * (x @ a.T) @ adapter[f"base_model.model.{name}.lora_B.weight"].T
    return y


def norm(x, name):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]) * weights[f"{name}.weight"]


def heads(x, count):
    return x.view(len(x), count, config["head_dim"]).transpose(0, 1)


def turned(x):
    half = config["head_dim"] // 2
    speed = config["rope_theta"] ** (-2.0 * torch.arange(half) / config["head_dim"])
    angle = torch.arange(x.shape[1])[:, None] * speed
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def attention(x, layer):
    query_heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    q = turned(heads(linear(x, f"{layer}.q_proj"), query_heads))
    k = turned(heads(linear(x, f"{layer}.k_proj"), key_heads)).repeat_interleave(query_heads // key_heads, 0)
    v = heads(linear(x, f"{layer}.v_proj"), key_heads).repeat_interleave(query_heads // key_heads, 0)
    places = torch.arange(len(x))
    distance = places[:, None] - places[None, :]
    seen = (distance >= 0) & (distance < (config.get("sliding_window") or len(x)))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return linear(out.transpose(0, 1).reshape(len(x), -1), f"{layer}.o_proj")


def logits(tokens):
    activation = {"silu": F.silu, "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh")}[config["hidden_act"]]
    x = F.embedding(torch.tensor(tokens), weights["model.embed_tokens.weight"])
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        x = x + attention(norm(x, f"{layer}.input_layernorm"), f"{layer}.self_attn")
        h = norm(x, f"{layer}.post_attention_layernorm")
        x = x + linear(activation(linear(h, f"{layer}.mlp.gate_proj")) * linear(h, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return linear(norm(x, "model.norm"), head)


def loss():
    rows = [logits(tokens)[wanted] for tokens, wanted in zip(case["tokens"], case["wanted"])]
    return F.cross_entropy(torch.cat(rows), torch.tensor(case["targets"]))


def error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


before = {name: tensor.detach().clone() for name, tensor in learned.items()}
# As everywhere: no decay for what is no matrix.
matrices = [tensor for tensor in learned.values() if tensor.dim() > 1]
others = [tensor for tensor in learned.values() if tensor.dim() == 1]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": case["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
    betas=(case["beta1"], case["beta2"]),
    eps=case["eps"],
)
found = {}
for step, rate in enumerate(case["rates"]):
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    value = loss()
    value.backward()
    if step == 0:
        ours = read("gradients")
        found["loss"] = abs(value.item() - case["loss"]) / value.item()
        found["gradients"] = {name: error(ours[name], tensor.grad) for name, tensor in learned.items()}
    if case["max_grad_norm"] > 0:
        norm_before = torch.nn.utils.clip_grad_norm_(list(learned.values()), case["max_grad_norm"]).item()
        found["clipped"] = norm_before > case["max_grad_norm"]
    optimizer.step()
stepped = read("stepped")
found["stepped"] = {name: error(stepped[name], tensor.detach()) for name, tensor in learned.items()}
found["changes"] = {name: error(stepped[name] - before[name], tensor.detach() - before[name]) for name, tensor in learned.items()}
print(json.dumps(found))
