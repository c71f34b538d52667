#!/usr/bin/env bash
# What the harness does and costs on a GPU, in one table: scripts/gpu_check.sh [--wheels DIR] [--device cpu] [PART...]
#
# Needs torch, torchvision, numpy, Hydra, tqdm and pytest, and nothing of what tracking, verdicts and pages need. With
# --wheels DIR it first installs the wheels of DIR beside what is there, without any network, for this call alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=.venv/bin/python
if [ "${1:-}" = --wheels ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$2"/*.whl
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
  shift 2
fi
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HARNESS_LEDGER= PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 \
  "$python" scripts/gpu_check.py "$@"
