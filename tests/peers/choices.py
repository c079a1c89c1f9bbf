"""Scores choices with transformers as lm-evaluation-harness scores them (TemplateLM._encode_pair, HFLM._loglikelihood_tokens and
ConfigurableTask.process_results of its version 0.4.12, followed step by step) and compares them with ours.

usage: choices.py MODEL_DIR DOCUMENTS.jsonl FEWSHOT.jsonl ITEMS.jsonl
DOCUMENTS: {"question", "choices": {"text", "label"}, "answerKey"}; ITEMS: what `evaluate` wrote. Prints {"max_abs": .., "documents": .., "acc": .., "acc_norm": ..,
"acc_bytes": .., "acc_mutual_info": .., "same": whether every item agrees}.
"""

import json
import sys

import jinja2
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, documents_path, fewshot_path, items_path = sys.argv[1:5]
read = lambda path: [json.loads(line) for line in open(path) if line.strip()]
documents, fewshot, items = read(documents_path), read(fewshot_path), read(items_path)
# In doubles, so that the difference is ours alone.
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
env = jinja2.Environment(loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
TEXT, TARGET, SHOTS, DESCRIPTION = "Question: {{question}}\nAnswer: ", "{{choices.label.index(answerKey)}}", 2, "Colours.\n\n"
prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def encode(text):
    return tokenizer.encode(text)


def encode_pair(context, continuation):
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole, before = encode(context + continuation), encode(context)
    return before, whole[len(before):]


def loglikelihood(context, continuation):
    if context == "":
        tokens = tokenizer.encode(continuation, add_special_tokens=False)
        before, after = ([prefix], tokens) if prefix != tokens[0] else (tokens[:1], tokens[1:])
    else:
        before, after = encode_pair(context, continuation)
    assert before and after
    with torch.no_grad():
        logits = torch.log_softmax(model(torch.tensor([(before + after)[:-1]])).logits[0], dim=-1)
    rows = logits[-len(after):]
    return rows.gather(-1, torch.tensor(after).unsqueeze(-1)).sum().item()


def render(template, document):
    return env.from_string(template).render(**document)


def context_of(document):
    shown = [example for example in fewshot if example != document][:SHOTS]
    text = DESCRIPTION
    for example in shown:
        right = example["choices"]["text"][int(render(TARGET, example))]
        text += render(TEXT, example) + "" + right + "\n\n"
    return text + render(TEXT, document)


worst, same, sums = 0.0, True, {"acc": 0.0, "acc_norm": 0.0, "acc_bytes": 0.0, "acc_mutual_info": 0.0}
for document, item in zip(documents, items, strict=True):
    choices, gold = document["choices"]["text"], int(render(TARGET, document))
    context = context_of(document)
    lls = [loglikelihood(context, choice) for choice in choices]
    alone = [loglikelihood("", choice) for choice in choices]
    worst = max(worst, np.abs(np.array(lls) - np.array(item["loglikelihoods"])).max())
    worst = max(worst, np.abs(np.array(alone) - np.array(item["unconditional_loglikelihoods"])).max())
    found = {
        "acc": np.argmax(lls) == gold,
        "acc_norm": np.argmax(lls / np.array([float(len(i)) for i in choices])) == gold,
        "acc_bytes": np.argmax(lls / np.array([float(len(i.encode("utf-8"))) for i in choices])) == gold,
        "acc_mutual_info": np.argmax([with_ - without for with_, without in zip(lls, alone)]) == gold,
    }
    same = same and item["targets"] == [gold] and all(bool(found[name]) == item[name] for name in found)
    for name in found:
        sums[name] += float(found[name])
print(json.dumps({"max_abs": float(worst), "documents": len(documents), "same": bool(same), **{name: sums[name] / len(documents) for name in sums}}))
