#!/bin/sh
# The GPU times of docs/performance.md, in three minutes on an H100 (loading and evaluation have their own): bench/all.sh [FOLDER]
# Logs go to FOLDER (default: out/bench). Kernels are compiled anew, so that the first line says what a cold start takes.
out=${1:-out/bench}
python=${PYTHON:-python3}
PYTHONPATH=src
TRITON_CACHE_DIR=$(mktemp -d)
export PYTHONPATH TRITON_CACHE_DIR
mkdir -p "$out"

part() {
    name=$1
    shift
    began=$(date +%s)
    "$@" >"$out/$name.txt" 2>&1
    echo "== $name: exit $?, $(($(date +%s) - began)) s"
    grep -v '^{.*"runs"' "$out/$name.txt" | tail -n "$lines"
}

lines=50 part cold $python -m alpamayo_r1.cli bench --size 10b
lines=9 part warm $python -m alpamayo_r1.cli bench --size 10b --samples 1 --tokens 16
lines=8 part render $python bench/render_speed.py
