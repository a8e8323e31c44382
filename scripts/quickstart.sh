#!/usr/bin/env bash
# From nothing to a trained, evaluated, fine-tuned and exported model of film reviews: bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

environment demo,lora,onnx
echo "running: llmtune run +recipe=quickstart"
llmtune run +recipe=quickstart
echo "predicting two sentences: llmtune predict runs/quickstart/latest/finetune"
printf '%s\n' "A warm, funny film with a wonderful cast." "A dull, clumsy story that goes nowhere." |
    llmtune predict runs/quickstart/latest/finetune
