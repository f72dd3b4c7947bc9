#!/usr/bin/env bash
# The whole road on invented data: teacher -> distilled student -> bundles -> gRPC answers -> the comparison.
# Everything lands in ./demo (or $1) and is made anew each time. About five minutes on two cores.
set -euo pipefail
out=${1:-demo}
export OMP_NUM_THREADS=1
children=()
trap 'for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done' EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ lowpass %s\n' "$*"; lowpass "$@"; }

rm -rf "$out"
mkdir -p "$out"
say "1. Invented interactions: 20,000 items, 80 clusters of taste, Zipf popularity, titles"
show data synth "$out/data" --users 10000 --items 20000 --clusters 80 --interactions 60 --breadth 0.002

say "2. A teacher, 320 numbers a user and item"
show train "$out/data" --out "$out/teacher" --dim 320 --backbone lpmf --backbone-set alpha=0.5 \
    --batch-size 8192 --lr 5e-3 --weight-decay 0.01 --schedule cosine --epochs 5 --eval-every 1

say "3. A student of 32 numbers, taught by the teacher and what validation blends with it.
   Meanwhile the teacher is exported, and made small without training: its rivals"
{
    show export "$out/teacher" --data "$out/data" --repository "$out/models" --model teacher
    show export --rivals 32 --teacher teacher --repository "$out/models"
} >"$out/export.log" 2>&1 &
children+=($!)
show distill "$out/data" --teacher "$out/teacher" --out "$out/student" --dim 32 --schedule cosine --epochs 40 --eval-every 10

say "4. All exported: embeddings, ONNX graphs, FAISS index, one bundle each"
show export "$out/student" --data "$out/data" --repository "$out/models" --model student --teacher "$out/teacher"
wait "${children[0]}" || { cat "$out/export.log" >&2; exit 1; }
cat "$out/export.log"
show models verify --repository "$out/models" student

say "5. Served over gRPC, and asked"
lowpass serve --repository "$out/models" --model student --address 127.0.0.1:0 --metrics-address 127.0.0.1:0 \
    --ready-file "$out/ready.json" 2>"$out/serve.log" &
server=$!
children=("$server")
for _ in $(seq 150); do [ -e "$out/ready.json" ] && break; sleep 0.2; done
field() { python -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$out/ready.json" "$1"; }
target=$(field address)
show query --target "$target" --user u00007 -k 5
show query --target "$target" --history i00042,i00099 -k 5
show query --target "$target" --similar i00042 -k 5
python - "$(field metrics_address)" <<'PY'
import sys, urllib.request

wanted = ("lowpass_request_duration_seconds_count", "lowpass_model_quality", "lowpass_bundle_load_seconds")
print(f"\nPrometheus, http://{sys.argv[1]}/metrics:")
for line in urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=5).read().decode().splitlines():
    if line.startswith(wanted):
        print("  " + line)
PY
kill -TERM "$server"
wait "$server"
children=()

say "6. What was won, and what was not: each model served in turn"
show bench --repository "$out/models" --against teacher --model student --seconds 1 --rounds 2 --out "$out/bench"

say "Done. Next:"
cat <<NEXT
  open $out/bench/bench.png and $out/student/curve.png
  lowpass evaluate $out/teacher $out/student         quality side by side
  lowpass serve --repository $out/models             keep it running; metrics on http://127.0.0.1:9464/metrics
  lowpass data prepare YOUR.csv --out mydata         your own interactions: README.md, "Your own data"
NEXT
