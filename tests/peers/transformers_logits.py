"""Loads a model folder with transformers and compares its logits with ours.

usage: transformers_logits.py MODEL_DIR CASES.json
CASES.json: [{"tokens": [..], "logits": [[..] a row for each token but the last]}]; prints {"max_abs": .., "max_logit": .., "same_text": .., "perplexity_moved": ..},
the last one relative to the same model in f64.
"""

import json
import math
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, cases_path = sys.argv[1:3]
cases = json.load(open(cases_path))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
worst, largest = 0.0, 0.0
our_loss, exact_loss, tokens = 0.0, 0.0, 0
with torch.no_grad():
    for case in cases:
        theirs = model(torch.tensor([case["tokens"]])).logits[0]
        ours = torch.tensor(case["logits"])
        theirs = theirs[: len(ours)]
        worst = max(worst, (theirs - ours).abs().max().item())
        largest = max(largest, theirs.abs().max().item())
        targets = torch.tensor(case["tokens"][1:])
        loss = lambda logits: torch.nn.functional.cross_entropy(logits.double()[: len(targets)], targets, reduction="sum").item()
        our_loss, exact_loss = our_loss + loss(ours), exact_loss + loss(exact(torch.tensor([case["tokens"]])).logits[0])
        tokens += len(targets)
moved = math.expm1((our_loss - exact_loss) / tokens)
same_tokens = all(tokenizer(case["text"])["input_ids"] == case["tokens"] for case in cases if "text" in case)
rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
print(json.dumps({"max_abs": worst, "max_logit": largest, "same_tokens": same_tokens, "rendered": rendered, "cases": len(cases), "perplexity_moved": moved}))
