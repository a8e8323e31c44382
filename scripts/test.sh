#!/usr/bin/env bash
# Environment, then all tests: bash scripts/test.sh [--slow] [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

environment augment,clean,demo,gguf,lora,onnx,optimizers,plots,qlora,test
exec python -m pytest --quiet --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@" < /dev/null
