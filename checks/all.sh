#!/bin/sh
# Every check of correctness, in about four minutes on an H100: checks/all.sh [FOLDER]
# Logs go to FOLDER (default: out/checks); ends with 1 where a check failed.
out=${1:-out/checks}
python=${PYTHON:-python3}
mkdir -p "$out"
rm -f "$out/failed"

part() {
    name=$1
    shift
    began=$(date +%s)
    "$@" >"$out/$name.txt" 2>&1
    code=$?
    [ $code -eq 0 ] || echo "$name" >>"$out/failed"
    echo "== $name: exit $code, $(($(date +%s) - began)) s
$(tail -n "$lines" "$out/$name.txt")"
}

lines=60 part engine $python checks/engine.py
lines=12 part compiled $python checks/compiled.py
lines=13 part fidelity $python checks/fidelity.py
[ "$($python -c 'import torch; print(torch.cuda.device_count())')" -lt 2 ] || lines=30 part pair $python checks/pair.py

# Side by side, with few threads that do not spin: they would wait for each other.
export OMP_NUM_THREADS=4 OMP_WAIT_POLICY=PASSIVE
lines=1 part endurance-tiny $python checks/endurance.py &
lines=1 part endurance-small $python checks/endurance.py --model small &
lines=40 part near-ties $python checks/near_ties.py --scenes 48 &
lines=1 part drafts $python checks/drafts.py &
lines=1 part stream $python checks/stream.py &
lines=4 part fp32 $python checks/fp32.py &
lines=40 part bf16 $python checks/bf16.py &
lines=60 part world $python checks/world.py &
PYTHONPATH=src lines=3 part tests $python -m pytest -m gpu -q -p no:cacheprovider tests &
wait
[ ! -s "$out/failed" ]
