#!/bin/sh
# Every GPU figure of docs/performance.md but loading, evaluation and rendering, in six minutes on an H100: bench/gpu.sh [FOLDER]
# Logs go to FOLDER (default: out/gpu). Kernels are compiled anew, so that the first line says what a cold start takes.
out=${1:-out/gpu}
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
lines=60 part check $python bench/engine_check.py --parts kernels,tiny,stages --minutes 3 --out "$out"
lines=13 part fidelity $python bench/fidelity.py

# Side by side, with few threads that do not spin: they would wait for each other.
export OMP_NUM_THREADS=4 OMP_WAIT_POLICY=PASSIVE
lines=1 part endurance-tiny $python bench/endurance.py &
lines=1 part endurance-small $python bench/endurance.py --model small &
lines=40 part near-ties $python bench/near_ties.py --scenes 48 &
lines=4 part fp32 $python bench/fp32_check.py &
lines=3 part tests $python -m pytest -m gpu -q -p no:cacheprovider tests/test_engine.py tests/test_loading.py tests/test_world_render.py &
wait
