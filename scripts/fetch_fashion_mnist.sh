#!/usr/bin/env bash
# fetch_fashion_mnist.sh [ROOT] - Fashion-MNIST where `dataset=fashion_mnist` looks for it (ROOT: $HARNESS_DATA or data/).
# From Debian's package dataset-fashion-mnist if it is installed (or can be: root, apt), else by torchvision's download.
set -euo pipefail
cd "$(dirname "$0")/.."

root=${1:-${HARNESS_DATA:-data}}
raw=$root/FashionMNIST/raw
packaged=/usr/share/datasets/fashion-mnist
files=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)

complete() { local f; for f in "${files[@]}"; do [ -s "$raw/$f" ] || return 1; done; }
if complete; then echo "already in $raw"; exit; fi

if [ ! -d "$packaged" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get install -y -qq dataset-fashion-mnist >/dev/null || true
fi
if [ -d "$packaged" ]; then
  mkdir -p "$raw"
  for f in "${files[@]}"; do
    gunzip -c "$packaged/$f.gz" >"$raw/.$f" && mv "$raw/.$f" "$raw/$f"
  done
else
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
  "$python" -c 'import sys; from torchvision.datasets import FashionMNIST; FashionMNIST(sys.argv[1], download=True)' "$root"
fi
complete && echo "Fashion-MNIST is in $raw"
