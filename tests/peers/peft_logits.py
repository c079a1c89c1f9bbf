"""Loads a model folder with transformers and an adapter folder with PEFT, and compares the logits with ours, beside the model and merged into it.

usage: peft_logits.py MODEL_DIR ADAPTER_DIR CASES.json RESAVED_DIR
CASES.json: [{"tokens": [..], "logits": [[..] a row for each token], "plain": [[..] without the adapter]}]. Writes the adapter as PEFT writes it.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

folder, adapter, cases_path, resaved = sys.argv[1:5]
cases = json.load(open(cases_path))
base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def farthest(model, key):
    with torch.no_grad():
        return max((model(torch.tensor([case["tokens"]])).logits[0] - torch.tensor(case[key])).abs().max().item() for case in cases)


found = {"class": type(base).__name__, "plain": farthest(base, "plain")}
model = PeftModel.from_pretrained(base, adapter).eval()
found["adapted"] = farthest(model, "logits")
model.save_pretrained(resaved)
found["merged"] = farthest(model.merge_and_unload(), "logits")
found["effect"] = max((torch.tensor(case["logits"]) - torch.tensor(case["plain"])).abs().max().item() for case in cases)
found["largest"] = max(torch.tensor(case["logits"]).abs().max().item() for case in cases)
print(json.dumps(found))
