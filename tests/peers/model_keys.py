"""Random legal variations of model files, and what transformers and llama.cpp make of each.

usage: model_keys.py make FOLDER SEED FIRST COUNT   COUNT model folders FOLDER/NUMBER and beside each NUMBER.json: what was varied, and what transformers makes of it
       model_keys.py gguf LIBRARIES CASES           CASES: [{"file", "texts", "sequences", "last"}]; what llama.cpp makes of each file

A case depends on SEED and its number only. Prints one JSON list.
"""

import io
import json
import os
import random
import sys

import numpy

TEMPLATES = os.path.join(os.path.dirname(__file__), "..", "chat_templates")

# ---------------------------------------------------------------- tokenizers

SPECIALS = ["<|endoftext|>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<tool>", "</tool>",
            "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<pad>", "<|fim_pad|>", "[INST]", "[/INST]"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+SUFFIX|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*SUFFIX|")
BEHIND = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = CASED.replace("SUFFIX", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"\p{N}{1,3}" + BEHIND
TEKKEN = CASED.replace("SUFFIX", "") + r"\p{N}" + BEHIND
SNIPPETS = ["the", " the", "  the", "   ", "\n", "\n\n", " \n ", "\t", "a", " b", "x", "it's", "THE'LL", "12345", " 7", "3.14", "naïve", "冷蔵庫", "é", "😀", "«q»", "...",
            "!?", "_", "▁", "hello", " world", "thethe", "in the", "/\n", "abthe", "<", "|>", "ing", "a  b", "user", "assistant", "Ünï"]
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))}
BYTE_MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("\u0120", "\u0120"), ("i", "n"), ("in", "g"), ("\u0120", "a"), ("h", "e"), ("\u0120", "b"), ("1", "2"), ("\u010a", "\u010a")]
PIECE_MERGES = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "▁"), ("▁▁", "▁▁"), ("i", "n"), ("in", "g"), ("▁", "a"), ("h", "e"), ("t", "he"), ("▁", "b"), ("1", "2"), ("\n", "\n")]


def merges_of(rng, pairs):
    """Some of the pairs, so that what each joins is there; a seldom one that is made in two ways."""
    kept, known = [], set()
    for left, right in pairs:
        if rng.random() < 0.85 and all(len(part) == 1 or part in known for part in (left, right)):
            kept.append((left, right))
            known.add(left + right)
    return kept


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}, byte_level(False)]}


def byte_rule(rng, family):
    nfc = {"type": "NFC"}
    if family == "qwen2" and rng.random() < 0.7:
        # transformers has a class of its own for the family.
        return nfc, split(QWEN2), False
    return rng.choice([
        (None, byte_level(True), False), (None, {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)]}, False),
        (None, split(LLAMA3), True), (None, split(LLAMA3), False), (nfc, split(QWEN2), False), (nfc, split(QWEN2, "Removed", True), False), (None, split(GPT4O), False),
        (None, split(TEKKEN), True)])


def piece_rule(rng):
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    metaspace = lambda scheme: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    gemma = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    return rng.choices([(prepend, None), (replace, gemma), (replace, None), (None, metaspace("never")), (None, metaspace("first")), (None, metaspace("always"))],
                       [4, 3, 1, 1, 1, 1])[0]


def tokenizer(rng, family, note):
    """`tokenizer.json` and the list of its special tokens."""
    pieces = rng.random() < {"gemma3": 0.85, "phi3": 0.5, "mistral": 0.5, "llama": 0.35}.get(family, 0.0)
    specials = SPECIALS[:4] + rng.sample(SPECIALS[4:], rng.randint(6, len(SPECIALS) - 4))
    vocab = {text: id for id, text in enumerate(specials)}
    merges = merges_of(rng, PIECE_MERGES if pieces else BYTE_MERGES)
    if rng.random() < 0.3:
        rng.shuffle(merges)
    letters = [*map("<0x{:02X}>".format, range(256)), *"▁\nabcdefghijklmnopqrstuvwxyz'0123456789.é"] if pieces else [LETTERS[byte] for byte in range(256)]
    for text in letters + [left + right for left, right in merges]:
        vocab.setdefault(text, len(vocab))
    phi = family == "phi3" and rng.random() < 0.6
    note("rstrip") if phi else None
    note("merges") if pieces else None
    added = []
    for text in specials:
        token = {"id": vocab[text], "content": text, "single_word": False, "lstrip": False, "rstrip": phi and text not in ("<unk>", "<s>", "<|endoftext|>"),
                 "normalized": False, "special": rng.random() < 0.9}
        note("special") if not token["special"] else None
        added.append(token)
    if rng.random() < 0.12:
        token, flag = rng.choice(added), rng.choice(["lstrip", "rstrip", "single_word", "normalized"])
        token[flag] = not token[flag]
        note(flag, token["content"])
    if rng.random() < 0.15:
        runs = [" " * n if not pieces else "▁" * n for n in (3, 4)]
        for text in runs[:rng.randint(1, 2)]:
            vocab.setdefault(text, len(vocab)) if pieces else None
            added.append({"id": vocab.get(text, max(len(vocab), max(token["id"] for token in added) + 1)), "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                          "special": False})
            note("added_tokens", text)
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": vocab, "merges": [list(pair) for pair in merges]}
    if rng.random() < 0.3:
        model["merges"] = [" ".join(pair) for pair in merges]
    if pieces:
        normalizer, pre = piece_rule(rng)
        model |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
        decoders = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
        if normalizer and normalizer["type"] == "Sequence":
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        decoder = {"type": "Sequence", "decoders": decoders}
        note("pre_tokenizer", "Metaspace") if pre and pre["type"] == "Metaspace" else None
    else:
        normalizer, pre, model["ignore_merges"] = byte_rule(rng, family)
        decoder = byte_level(True)
        if rng.random() < 0.1:
            model["ignore_merges"] = not model["ignore_merges"]
            note("ignore_merges")
    # A text that nothing merges to.
    if rng.random() < 0.1:
        vocab.setdefault("xyz", len(vocab)) if all(token["id"] < len(vocab) for token in added) else None
        note("vocab", "ignore_merges", "xyz")
    file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": None, "decoder": decoder,
            "model": model}
    for vary in rng.sample(TOKENIZER, rng.choices([0, 1, 2], [5, 4, 1])[0]):
        vary(rng, file, specials, pieces, note)
    return file, specials, pieces


def begins(rng, file, specials, pieces, note):
    token = rng.choice(["<s>", "<|endoftext|>"])
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    file["post_processor"] = {"type": "TemplateProcessing", "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
                              "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                              "special_tokens": {token: {"id": token, "ids": [specials.index(token)], "tokens": [token]}}}
    note("post_processor")


def cuts(rng, file, specials, pieces, note):
    file["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    file["padding"] = rng.choice([None, {"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}])
    note("truncation", "padding")


def dropout(rng, file, specials, pieces, note):
    file["model"]["dropout"] = rng.choice([0.0, 0.1, 1.0])
    note("dropout")


def normalizer(rng, file, specials, pieces, note):
    file["normalizer"] = rng.choice([{"type": "Lowercase"}, {"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Sequence", "normalizers": []}])
    note("normalizer")


def affixes(rng, file, specials, pieces, note):
    # Another prefix makes the tokenizers crate abort the process, unless all merges have it.
    file["model"]["continuing_subword_prefix"] = rng.choice(["", None])
    file["model"]["end_of_word_suffix"] = rng.choice(["", "</w>", None])
    note("continuing_subword_prefix", "end_of_word_suffix")


def unknown(rng, file, specials, pieces, note):
    file["model"]["unk_token"] = rng.choice([None, "<unk>", "<|endoftext|>"])
    file["model"]["fuse_unk"] = rng.random() < 0.5
    note("unk_token", "fuse_unk")


def left_out(rng, file, specials, pieces, note):
    for place, name in [(file, "truncation"), (file, "padding"), (file, "post_processor"), (file["model"], "dropout"), (file["model"], "ignore_merges"), (file["model"], "fuse_unk")]:
        if rng.random() < 0.5 and place[name] in (None, False):
            place.pop(name)
    note("tokenizer.json")


def prefix_space(rng, file, specials, pieces, note):
    def set_in(node):
        if isinstance(node, dict):
            if node.get("type") == "ByteLevel":
                node["add_prefix_space"] = True
            for value in node.values():
                set_in(value)
        elif isinstance(node, list):
            for value in node:
                set_in(value)
    set_in(file["pre_tokenizer"])
    note("add_prefix_space", "pre_tokenizer")


TOKENIZER = [begins, begins, cuts, dropout, normalizer, affixes, unknown, left_out, prefix_space]

# ---------------------------------------------------------------- what stands beside tokenizer.json


def spelled(rng, text):
    """A token as a text or as an object."""
    if rng.random() < 0.6:
        return text
    return {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def write(path, name, value):
    with open(os.path.join(path, name), "w") as file:
        json.dump(value, file, ensure_ascii=False)


def tokenizer_files(rng, path, family, file, specials, note):
    """`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the templates."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, often in [("bos_token", 0.7), ("eos_token", 0.85), ("pad_token", 0.5), ("unk_token", 0.4)]:
        if rng.random() < often:
            config[name] = spelled(rng, rng.choice(specials[:3] + specials[4:8]))
        elif rng.random() < 0.3 or name != "bos_token" and family == "qwen2":
            config[name] = None
    for vary in rng.sample(BESIDE, rng.choices([0, 1, 2, 3], [3, 4, 2, 1])[0]):
        vary(rng, path, config, file, specials, note)
    template(rng, path, config, specials, note)
    if rng.random() < 0.04:
        note("tokenizer_config.json")
        return None
    write(path, "tokenizer_config.json", config)
    return config


def adds(rng, path, config, file, specials, note):
    for name in ("add_bos_token", "add_eos_token"):
        if rng.random() < 0.7:
            config[name] = rng.choice([True, False])
            note(name)


def decoder_of_config(rng, path, config, file, specials, note):
    listed = {str(token["id"]): {name: token[name] for name in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")} for token in file["added_tokens"]}
    extra = rng.random()
    if extra < 0.4:
        place = next_id(file)
        listed[str(place)] = {"content": "<|new|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": rng.random() < 0.7}
        note("added_tokens_decoder", "<|new|>")
    elif extra < 0.5:
        listed = dict(list(listed.items())[:3])
    elif extra < 0.6:
        token = listed[str(file["added_tokens"][5]["id"])]
        flag = rng.choice(["lstrip", "rstrip", "special", "normalized", "single_word"])
        token[flag] = not token[flag]
        note("added_tokens_decoder", token["content"])
    config["added_tokens_decoder"] = listed
    note("added_tokens_decoder")


def next_id(file):
    return max(*file["model"]["vocab"].values(), *(token["id"] for token in file["added_tokens"])) + 1


def additional(rng, path, config, file, specials, note):
    texts = rng.sample(specials, 2) + (["<|more|>"] if rng.random() < 0.5 else [])
    name = rng.choice(["additional_special_tokens", "extra_special_tokens"])
    config[name] = [spelled(rng, text) for text in texts]
    if rng.random() < 0.3:
        config["extra_special_tokens"] = {"image_token": "<tool>" if rng.random() < 0.5 else "<image>"}
    note("additional_special_tokens", "extra_special_tokens", "<|more|>", "<image>", "<tool>")


def own_token(rng, path, config, file, specials, note):
    config["image_token"] = rng.choice(["<tool>", "<image>"])
    note("image_token", "<image>", "<tool>")


def older_files(rng, path, config, file, specials, note):
    if rng.random() < 0.7:
        write(path, "special_tokens_map.json", {name: spelled(rng, rng.choice(specials[:8])) for name in ("bos_token", "eos_token", "pad_token") if rng.random() < 0.6})
        note("special_tokens_map.json", "bos_token", "eos_token")
    if rng.random() < 0.7:
        listed = {token["content"]: token["id"] for token in file["added_tokens"][:6]}
        if rng.random() < 0.4:
            listed["<|old|>"] = next_id(file)
        write(path, "added_tokens.json", listed)
        note("added_tokens.json", "<|old|>")


def harmless_beside(rng, path, config, file, specials, note):
    fields = {"clean_up_tokenization_spaces": True, "legacy": rng.choice([True, False]), "model_max_length": rng.choice([16, 1000000000000000019884624838656]), "padding_side": "left",
              "truncation_side": "left", "use_default_system_prompt": True, "sp_model_kwargs": {}, "errors": "replace", "spaces_between_special_tokens": False,
              "model_input_names": ["input_ids", "attention_mask"], "add_prefix_space": rng.choice([True, False, None])}
    for name in rng.sample(list(fields), 4):
        config[name] = fields[name]
        note(name)


def split_special(rng, path, config, file, specials, note):
    config["split_special_tokens"] = rng.choice([True, False])
    note("split_special_tokens")


def other_class(rng, path, config, file, specials, note):
    config["tokenizer_class"] = rng.choice(["TokenizersBackend", "GPT2Tokenizer", "LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast", "GemmaTokenizer", None])
    if config["tokenizer_class"] is None:
        config.pop("tokenizer_class")
    note("tokenizer_class", "add_prefix_space")


def unknown_field(rng, path, config, file, specials, note):
    config["frobnicate"] = 7
    note("frobnicate", told="frobnicate")


def no_such_token(rng, path, config, file, specials, note):
    name = rng.choice(["pad_token", "unk_token", "eos_token", "mask_token"])
    config[name] = "[NOPE]"
    note(name, "[NOPE]")


BESIDE = [adds, adds, decoder_of_config, decoder_of_config, additional, own_token, older_files, older_files, harmless_beside, harmless_beside, split_special, other_class, unknown_field, no_such_token]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PHI = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
NAMED = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{{ unk_token }}{% endfor %}"
PADDED = "{{ bos_token }}{%- for m in messages -%}\n  {{- '[' ~ m['role'].upper() ~ ']' -}} {{ m['content'] | trim }} {{ pad_token }}\n{%- endfor %}\n"


def some_template(rng):
    if rng.random() < 0.6:
        return rng.choice([CHATML, CHATML, PHI, NAMED, PADDED])
    return open(os.path.join(TEMPLATES, rng.choice(sorted(name for name in os.listdir(TEMPLATES) if name.endswith(".jinja"))))).read()


def template(rng, path, config, specials, note):
    way = rng.random()
    note("chat_template")
    if way < 0.15:
        return
    if way < 0.5:
        config["chat_template"] = some_template(rng)
    if 0.45 < way < 0.85:
        open(os.path.join(path, "chat_template.jinja"), "w", newline="").write(some_template(rng))
    if 0.8 < way < 0.9:
        os.makedirs(os.path.join(path, "additional_chat_templates"))
        open(os.path.join(path, "additional_chat_templates", rng.choice(["tool_use", "rag"]) + ".jinja"), "w", newline="").write(some_template(rng))
    if way > 0.88:
        names = rng.choice([["default"], ["default", "tool_use"], ["tool_use"], ["default", "rag"]])
        config["chat_template"] = [{"name": name, "template": some_template(rng)} for name in names]


TOOLS = [{"type": "function", "function": {"name": "open", "description": "Opens", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}]
# Messages, tools, and whether an answer is awaited.
CONVERSATIONS = [
    ([{"role": "user", "content": " the  x\n"}], None, True),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "öffne"}, {"role": "assistant", "content": " ja "}], None, False),
    ([{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}], None, False),
    ([{"role": "user", "content": "q<tool>1"}, {"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}], TOOLS, True),
]

# ---------------------------------------------------------------- config.json

FAMILIES = {
    "llama": ("llama", "LlamaForCausalLM"), "mistral": ("mistral", "MistralForCausalLM"), "qwen2": ("qwen2", "Qwen2ForCausalLM"), "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"), "phi3": ("phi3", "Phi3ForCausalLM"), "smollm3": ("smollm3", "SmolLM3ForCausalLM")}


def base_config(rng, family, vocab_size):
    model_type, architecture = FAMILIES[family]
    heads = rng.choice([2, 4])
    hidden = rng.choice([32, 48, 64])
    config = {"model_type": model_type, "architectures": [architecture], "vocab_size": vocab_size, "hidden_size": hidden, "intermediate_size": rng.choice([48, 96]),
              "num_hidden_layers": 2, "num_attention_heads": heads, "num_key_value_heads": rng.choice([1, 2, heads]) , "max_position_embeddings": rng.choice([64, 128]),
              "rms_norm_eps": rng.choice([1e-5, 1e-6]), "hidden_act": "silu", "bos_token_id": rng.choice([None, 1]), "eos_token_id": rng.choice([0, 2]), "pad_token_id": None,
              "tie_word_embeddings": rng.choice([True, False]), "rope_theta": rng.choice([10000.0, 500000.0, 500.0])}
    if family == "gemma3":
        config |= {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 16, "sliding_window": rng.choice([8, 512]), "query_pre_attn_scalar": 16}
        config.pop("hidden_act")
        config["num_hidden_layers"] = rng.choice([2, 6])
    if family in ("qwen3", "llama", "mistral", "qwen2") and rng.random() < {"qwen3": 1.0, "qwen2": 0.05}.get(family, 0.3):
        config["head_dim"] = rng.choice([16, 24])
    if family == "mistral":
        config["sliding_window"] = rng.choice([None, None, 8])
    if family == "phi3":
        config["sliding_window"] = rng.choice([None, None, 8, 64])
        config["original_max_position_embeddings"] = config["max_position_embeddings"]
    if family == "smollm3":
        config["num_hidden_layers"] = rng.choice([2, 4])
    if family in ("qwen2", "qwen3"):
        config["use_sliding_window"] = False
    return config


def table(rng, config, family):
    """A table of stretched positions."""
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    positions = config.get("max_position_embeddings", 2048)
    kind = rng.choice(["default", "linear", "llama3", "yarn", "longrope", "dynamic"] if family != "phi3" else ["default", "longrope", "longrope", "su", "yarn", "linear"])
    found = {"rope_type": kind}
    if kind in ("linear", "dynamic"):
        found["factor"] = rng.choice([2.0, 4.0, 1.0, 8])
    if kind == "llama3":
        found |= {"factor": rng.choice([8.0, 2.0]), "low_freq_factor": 1.0, "high_freq_factor": rng.choice([4.0, 2.0]), "original_max_position_embeddings": rng.choice([16, 32])}
    if kind == "yarn" and family != "phi3":
        found |= {"factor": rng.choice([2.0, 4.0]), "original_max_position_embeddings": rng.choice([16, 32])}
        for name, value in [("attention_factor", 1.2), ("beta_fast", 16.0), ("beta_slow", 2.0), ("mscale", 1.0), ("mscale_all_dim", 0.5), ("truncate", False)]:
            if rng.random() < 0.12:
                found[name] = value
    if kind in ("longrope", "su") or kind == "yarn" and family == "phi3":
        factor = config.get("partial_rotary_factor", 1.0)
        pairs = int(dim * factor) // 2
        found |= {"short_factor": [1.0 + 0.05 * i for i in range(pairs)], "long_factor": [1.0 + 0.4 * i for i in range(pairs)]}
        if family != "phi3":
            found |= {"original_max_position_embeddings": rng.choice([16, positions]), "factor": rng.choice([2.0, 4.0])}
        if rng.random() < 0.2:
            found["attention_factor"] = 1.3
    if rng.random() < 0.1:
        found["finetuned"] = True
    return found


ROPE = ["rope_theta", "rope_scaling", "rope_parameters", "rope_type", "factor", "original_max_position_embeddings", "partial_rotary_factor", "rope_local_base_freq", "truncate",
        "attention_factor", "short_factor", "long_factor"]


def rope(rng, config, family, note):
    note(*ROPE)
    if family == "phi3" and rng.random() < 0.7:
        config["original_max_position_embeddings"] = rng.choice([8, 16, 300])
        config.setdefault("max_position_embeddings", 128)
        if config["original_max_position_embeddings"] == 300:
            config["max_position_embeddings"] = 600
    if family == "gemma3" and rng.random() < 0.5:
        full = table(rng, config, family)
        full["rope_theta"] = rng.choice([1e6, 1e4])
        config["rope_parameters"] = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": rng.choice([1e4, 1e4, 5e3])}}
        if rng.random() < 0.3:
            config["rope_scaling"] = table(rng, config, family)
        if rng.random() < 0.5:
            config.pop("rope_theta", None)
        return
    found = table(rng, config, family)
    where = rng.choice(["rope_scaling", "rope_scaling", "rope_parameters", "rope_parameters", "both"])
    if rng.random() < 0.4:
        found["rope_theta"] = rng.choice([10000.0, 777.0, 1000000])
        if rng.random() < 0.6:
            config.pop("rope_theta", None)
    if rng.random() < 0.25:
        found["type"] = found["rope_type"]
        if rng.random() < 0.7:
            found.pop("rope_type")
    if where in ("rope_scaling", "both"):
        config["rope_scaling"] = found
    if where in ("rope_parameters", "both"):
        config["rope_parameters"] = found if where != "both" else {"rope_type": "linear", "factor": 3.0, "rope_theta": 99.0}


def partial(rng, config, family, note):
    config["partial_rotary_factor"] = rng.choice([1.0, 0.5, 0.75])
    note("partial_rotary_factor", "rope.dimension_count")


def theta(rng, config, family, note):
    way = rng.random()
    if way < 0.3:
        config.pop("rope_theta", None)
    elif way < 0.6:
        config["rope_theta"] = rng.choice([10000, 1e6, 31.5])
    else:
        config["rope_scaling"] = None
    if family == "gemma3":
        config["rope_local_base_freq"] = rng.choice([10000.0, 10000.0, 5000.0])
    note(*ROPE)


def ends(rng, config, family, note):
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        way = rng.random()
        ids = rng.sample(range(10), 3)
        if way < 0.15:
            config.pop(name, None)
        elif way < 0.3:
            config[name] = None
        elif way < 0.55 and name == "eos_token_id":
            config[name] = ids[:rng.randint(1, 3)]
        elif way < 0.6:
            config[name] = rng.choice([-1, config["vocab_size"], config["vocab_size"] - 1])
        else:
            config[name] = ids[0]
        note(name)


def optional(rng, config, family, note):
    for name in ("head_dim", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings"):
        way = rng.random()
        if way < 0.2:
            config.pop(name, None)
            note(name)
        elif way < 0.3 and name in ("head_dim", "num_key_value_heads"):
            config[name] = None
            note(name)


def act(rng, config, family, note):
    names = ["silu", "swish", "gelu_pytorch_tanh", "gelu_new", "gelu", "relu", "gelu_fast", "quick_gelu"]
    for name in ("hidden_act", "hidden_activation"):
        if rng.random() < 0.6:
            config[name] = rng.choice(names)
    note("hidden_act", "hidden_activation", "MLP with", "GeLU")


def biases(rng, config, family, note):
    config[rng.choice(["attention_bias", "mlp_bias", "lm_head_bias"])] = rng.choice([True, True, False, None])
    note("attention_bias", "mlp_bias", "lm_head_bias")


def windows(rng, config, family, note):
    note("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "sliding_window_pattern", "_sliding_window_pattern", "sliding window")
    way = rng.random()
    if way < 0.7:
        config["sliding_window"] = rng.choice([None, 4, 8, 16, 64])
    elif way < 0.8:
        config.pop("sliding_window", None)
    if family in ("qwen2", "qwen3", "smollm3", "llama") or rng.random() < 0.1:
        config["use_sliding_window"] = rng.choice([True, True, False, None])
        if rng.random() < 0.7:
            config["max_window_layers"] = rng.choice([0, 1, 2, 28])
    if rng.random() < 0.4:
        kinds = ["full_attention", "sliding_attention"]
        config["layer_types"] = [rng.choice(kinds) for _ in range(config["num_hidden_layers"])]
        if rng.random() < 0.3:
            config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    if family == "gemma3" and rng.random() < 0.5:
        config[rng.choice(["sliding_window_pattern", "_sliding_window_pattern"])] = rng.choice([1, 2, 6])


def caps(rng, config, family, note):
    name = rng.choice(["final_logit_softcapping", "attn_logit_softcapping"])
    config[name] = rng.choice([None, 5.0, 0.0, 30.0])
    note(name)


def scalar(rng, config, family, note):
    config["query_pre_attn_scalar"] = rng.choice([16, 40, 256, None])
    note("query_pre_attn_scalar")
    if rng.random() < 0.3:
        config.pop("query_pre_attn_scalar")


def unturned(rng, config, family, note):
    if rng.random() < 0.5:
        config["no_rope_layer_interval"] = rng.choice([1, 2, 4, 3])
    if rng.random() < 0.6:
        config["no_rope_layers"] = rng.choice([None, [rng.choice([0, 1]) for _ in range(config["num_hidden_layers"])], [1] * config["num_hidden_layers"]])
    note("no_rope_layers", "no_rope_layer_interval")


def types(rng, config, family, note):
    config[rng.choice(["dtype", "torch_dtype"])] = rng.choice(["float32", "bfloat16", "float16", None])
    note("dtype", "torch_dtype")


HARMLESS = {"attention_dropout": 0.5, "initializer_range": 0.1, "use_cache": False, "pretraining_tp": 2, "resid_pdrop": 0.3, "embd_pdrop": 0.3, "router_aux_loss_coef": 0.1, "num_labels": 3,
            "transformers_version": "4.1.0", "tie_encoder_decoder": False, "torchscript": False, "sep_token_id": 3, "cls_token_id": 3, "prefix": "x", "bos_token": "x", "rope_interleaved": True,
            "is_llama_config": True, "chunk_size_feed_forward": 2, "output_attentions": False, "return_dict": True, "use_qk_norm": True, "qk_layernorm": True, "attn_temperature_tuning": True,
            "attention_chunk_size": 4, "name_or_path": "x", "_name_or_path": "x", "unsloth_version": "1", "is_decoder": False, "id2label": {"0": "a", "1": "b"}, "problem_type": None}
REFUSED = {"num_experts": 4, "num_local_experts": 8, "n_routed_experts": 2, "logit_scale": 0.5, "logits_scaling": 2.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
           "attention_multiplier": 0.5, "is_causal": False, "use_bidirectional_attention": True, "pruned_heads": {"0": [1]}, "add_cross_attention": True, "is_encoder_decoder": True,
           "vision_config": {"a": 1}, "text_config": {"hidden_size": 8}}


def harmless(rng, config, family, note):
    for name in rng.sample(list(HARMLESS), 3):
        config[name] = HARMLESS[name]
        note(name)


def refused(rng, config, family, note):
    name = rng.choice(list(REFUSED))
    config[name] = rng.choice([REFUSED[name], None, REFUSED[name]])
    note(name)


def unknown_key(rng, config, family, note):
    config["frobnicate"] = rng.choice([3, "x", [1], {"a": 1}])
    note("frobnicate", told="frobnicate")


CONFIG = [rope, rope, rope, theta, ends, ends, optional, optional, act, biases, windows, windows, partial, caps, types, harmless, harmless, refused, unknown_key]
OF_FAMILY = {"gemma3": [scalar], "smollm3": [unturned]}


def generation(rng, path, config, note):
    if rng.random() < 0.4:
        return
    fields = {"transformers_version": "4.40.0"}
    way = rng.random()
    if way < 0.4:
        fields["eos_token_id"] = rng.sample(range(12), rng.randint(1, 3))
    elif way < 0.8:
        fields["eos_token_id"] = rng.randrange(12)
    elif way < 0.85:
        fields["eos_token_id"] = None
    for name, value in [("bos_token_id", 1), ("pad_token_id", 0), ("do_sample", True), ("temperature", 0.7), ("top_p", 0.9), ("top_k", 10), ("max_length", 20), ("max_new_tokens", 5)]:
        if rng.random() < 0.25:
            fields[name] = value
            note(name)
    note("eos_token_id", "generation_config.json")
    if rng.random() < 0.15:
        name, value = rng.choice([("repetition_penalty", 1.2), ("no_repeat_ngram_size", 2), ("suppress_tokens", [3]), ("min_new_tokens", 3), ("forced_eos_token_id", 0), ("frobnicate", 3)])
        fields[name] = value
        note(name, told=name)
    write(path, "generation_config.json", fields)


# ---------------------------------------------------------------- weights


def exact(torch, value):
    """What F16 and BF16 both hold."""
    value = value.to(torch.bfloat16).to(torch.float32)
    return torch.where(value.abs() < 2.0 ** -12, torch.zeros_like(value), value)


def fill(torch, model, family, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("norm.weight"):
                drawn = 0.2 * drawn + (0.0 if family == "gemma3" else 1.0)
            elif value.dim() == 1:
                drawn = 0.5 * drawn
            else:
                drawn = drawn * (0.5 if "embed" in name else 1.5 / value.shape[-1] ** 0.5)
            value.copy_(exact(torch, drawn))


def store(rng, torch, model, config, path, note):
    """The weights as people publish them."""
    from safetensors.torch import save_file
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    tied = state[head].equal(state[embedding]) if head in state else True
    way = rng.random()
    if tied and way < 0.65:
        state.pop(head, None)
    elif tied and way < 0.72:
        # Only the head is there.
        state[head] = state.pop(embedding)
        note("tie_word_embeddings", "lm_head.weight", "embed_tokens")
    elif tied and way < 0.8:
        state[head] = exact(torch, torch.randn(state[embedding].shape, generator=torch.Generator().manual_seed(7)))
        note("tie_word_embeddings", "lm_head.weight")
    elif not tied and way < 0.08:
        state[head] = state[embedding].clone()
        note("tie_word_embeddings", "lm_head.weight")
    note("tie_word_embeddings") if tied else None
    if rng.random() < 0.12 and (tied or head in state):
        state = {name.removeprefix("model."): value for name, value in state.items()}
        note("model.")
    if rng.random() < 0.06:
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        note("inv_freq")
    if rng.random() < 0.03:
        state["model.frobnicate.weight"] = torch.ones(4)
        note("model.frobnicate.weight")
    if rng.random() < 0.02:
        name = rng.choice(sorted(name for name in state if "layers" in name))
        state.pop(name)
        note(name, name.removeprefix("model."))
    kinds = [torch.float32, torch.float16, torch.bfloat16]
    one = rng.choice(kinds)
    mixed = rng.random() < 0.2
    state = {name: value.to(rng.choice(kinds) if mixed else one) for name, value in state.items()}
    if rng.random() < 0.3:
        names, count = sorted(state), rng.randint(2, 3)
        rng.shuffle(names)
        parts = {f"model-{i + 1:05}-of-{count:05}.safetensors": names[i::count] for i in range(count)}
        for part, held in parts.items():
            save_file({name: state[name] for name in held}, os.path.join(path, part), metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": {name: part for part, held in parts.items() for name in held}}
        if rng.random() < 0.2:
            index["metadata"] = {}
        write(path, "model.safetensors.index.json", index)
        note("model.safetensors.index.json")
    else:
        save_file(state, os.path.join(path, "model.safetensors"), metadata=rng.choice([{"format": "pt"}, {"format": "pt", "x": "y"}]))


# ---------------------------------------------------------------- a case


def texts(rng, specials):
    return ["".join(rng.choice(specials if rng.random() < 0.2 else SNIPPETS) for _ in range(rng.randint(1, 7))) for _ in range(9)] + ["", " the<|new|> the", "a <|more|> b<image>"]


def attempt(action):
    try:
        return {"ok": action()}
    except BaseException as error:  # the tokenizers crate panics on some files
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def of_model(torch, transformers, path, sequences):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        rows = [model(torch.tensor([tokens])).logits[0, -3:].tolist() for tokens in sequences]
    return {"logits": rows, "ends": listed(model.generation_config.eos_token_id), "config_ends": listed(json.load(open(os.path.join(path, "config.json"))).get("eos_token_id"))}


def listed(ids):
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def of_tokenizer(transformers, path, given):
    found = transformers.AutoTokenizer.from_pretrained(path)
    encoded = [found(text, add_special_tokens=False).input_ids for text in given]
    whole = found("the").input_ids
    prompts = []
    for messages, tools, awaits in CONVERSATIONS:
        prompts.append(attempt(lambda: found.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=awaits)))
    behind = attempt(lambda: found.apply_chat_template([{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ue000"}], tokenize=False)).get("ok", "")
    return {"tokens": encoded, "decoded": [found.decode(ids, skip_special_tokens=True) for ids in encoded], "bos": found.bos_token_id, "eos": found.eos_token_id, "pad": found.pad_token_id,
            "begins": found.bos_token_id is not None and whole[:1] == [found.bos_token_id], "finishes": found.eos_token_id is not None and whole[-1:] == [found.eos_token_id],
            "prompts": prompts, "closing": [token.content for token in found.added_tokens_decoder.values() if token.special or token.content.startswith("<|")], "behind": behind.rpartition("\ue000")[2] if "\ue000" in behind else "", "template": bool(found.chat_template), "class": type(found).__name__}


def case(torch, transformers, folder, seed, number):
    rng = random.Random(f"{seed}/{number}")
    path = os.path.join(folder, str(number))
    os.makedirs(path)
    varied, told = [], []

    def note(*names, told=None, heard=told):
        varied.extend(name for name in names if name not in varied)
        heard.extend([told] if told else [])

    family = rng.choices(list(FAMILIES), [5, 3, 3, 3, 4, 3, 2])[0]
    file, specials, pieces = tokenizer(rng, family, note)
    write(path, "tokenizer.json", file)
    beside = tokenizer_files(rng, path, family, file, specials, note)
    if beside is None:
        told.clear()
    size = next_id(file) + rng.choice([0, 0, 1, 3, 12])
    if rng.random() < 0.04:
        size -= 2
        note("vocab", "vocab_size")
    config = base_config(rng, family, size)
    plain = dict(config)
    note("sliding_window") if config.get("sliding_window") else None
    note("head_dim", "query_pre_attn_scalar") if config.get("head_dim") else None
    chosen = rng.sample(CONFIG + 2 * OF_FAMILY.get(family, []), rng.choices([0, 1, 2, 3], [2, 5, 3, 2])[0])
    for vary in dict.fromkeys(chosen):
        vary(rng, config, family, note)
    generation(rng, path, config, note)
    write(path, "config.json", config)
    try:
        made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(path), dtype=torch.float32)
    except Exception:
        made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**plain), dtype=torch.float32)
    fill(torch, made, family, number + 1)
    store(rng, torch, made, config, path, note)
    given = texts(rng, specials)
    sequences = [[rng.randrange(size - 2) for _ in range(length)] for length in (rng.randint(20, 30), rng.randint(4, 7))]
    found = {"family": family, "varied": varied, "told": told, "texts": given, "sequences": sequences, "specials": [token["content"] for token in file["added_tokens"] if token["special"] or token["content"].startswith("<|")],
             "conversations": [{"messages": json.dumps(messages), "tools": json.dumps(tools) if tools else None, "awaits": awaits} for messages, tools, awaits in CONVERSATIONS],
             "model": attempt(lambda: of_model(torch, transformers, path, sequences)), "tokenizer": attempt(lambda: of_tokenizer(transformers, path, given))}
    json.dump(found, open(os.path.join(folder, f"{number}.json"), "w"))
    return number


def make(folder, seed, first, count):
    import torch
    import transformers
    transformers.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()
    import datetime

    class Day(datetime.datetime):
        @classmethod
        def now(cls, *_):
            return datetime.datetime(2026, 1, 31, 12, 30)

    transformers.utils.chat_template_utils.datetime = Day
    torch.set_num_threads(1)
    return [case(torch, transformers, folder, seed, number) for number in range(int(first), int(first) + int(count))]


# ---------------------------------------------------------------- llama.cpp


def gguf(libraries, cases):
    """Each in a process of its own, as llama.cpp aborts on some files."""
    sys.argv = ["llama_cpp.py", libraries, "", ""]
    source = open(os.path.join(os.path.dirname(__file__), "llama_cpp.py")).read().split("COMMANDS = [")[0]
    names = {}
    exec(compile(source, "llama_cpp.py", "exec"), names)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # Loaded once; children have it.
    names["llama"]()

    def found(case):
        import ctypes
        session = names["Session"](case["file"], plain=True)
        lib, declare, pointer = session.lib, names["declare"], names["pointer"]
        vocab = declare(lib, "llama_model_get_vocab", pointer, pointer)(session.model)
        count = declare(lib, "llama_vocab_n_tokens", ctypes.c_int32, pointer)(vocab)
        is_end = declare(lib, "llama_vocab_is_eog", ctypes.c_bool, pointer, ctypes.c_int32)
        tokenize = declare(lib, "llama_tokenize", ctypes.c_int32, pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool)
        of = lambda name, kind: declare(lib, name, kind, pointer)(vocab)
        template = declare(lib, "llama_model_chat_template", ctypes.c_char_p, pointer, ctypes.c_char_p)(session.model, None)

        def tokens(text):
            text = text.encode()
            room = (ctypes.c_int32 * (len(text) + 16))()
            return list(room[:max(0, tokenize(vocab, text, len(text), room, len(room), False, True))])

        return {"tokens": [tokens(text) for text in case["texts"]], "ends": [id for id in range(count) if is_end(vocab, id)], "begins": of("llama_vocab_get_add_bos", ctypes.c_bool),
                "bos": of("llama_vocab_bos", ctypes.c_int32), "eos": of("llama_vocab_eos", ctypes.c_int32), "template": template.decode() if template else None,
                "logits": [session.rows(tokens, count)[-3:].tolist() for tokens in case["sequences"]]}

    def apart(case):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            held = json.dumps(found(case)).encode()
            with os.fdopen(write, "wb") as pipe:
                pipe.write(held)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            held = pipe.read()
        os.waitpid(child, 0)
        return {"ok": json.loads(held)} if held else {"error": "llama.cpp refuses the file"}

    return [apart(case) for case in json.load(open(cases))]


command, *rest = sys.argv[1:]
print(json.dumps({"make": make, "gguf": gguf}[command](*rest)))
