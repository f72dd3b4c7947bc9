#!/usr/bin/env bash
# Train a teacher and tuned students on a data directory and print the comparison: tuning looks at validation
# only (one trial for each setting given), and what won is repeated over three seeds.
#
#   deploy/evidence.sh DATA OUT TEACHER_DIM TEACHER_PATIENCE "WEIGHT:WEIGHT_DECAY …" "SCRATCH_WEIGHT_DECAY …"
#
# A run that is finished is not run again, so the script can be stopped and started at will; JOBS (default 2)
# trainings go side by side.
set -euo pipefail
data=$1 out=$2 teacher_dim=$3 teacher_patience=$4 distilled=$5 scratch=$6
jobs=${JOBS:-2}
export OMP_NUM_THREADS=1
mkdir -p "$out/logs"

run() { # run NAME COMMAND…: train into $out/NAME unless it is finished; resume what was cut off
    local name=$1 resume=()
    shift
    [ -e "$out/$name/metrics.json" ] && return 0
    [ -e "$out/$name/checkpoint.json" ] && resume=(--resume)
    "$@" --out "$out/$name" "${resume[@]}" >"$out/logs/$name.log" 2>&1 || { echo "failed: see $out/logs/$name.log" >&2; return 1; }
}
later() { # the same in the background, at most $jobs at a time
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    run "$@" &
}
settings_of() { # method arguments by name
    case $1 in
    scratch) echo "train" ;;
    fd) echo "distill --teacher $out/teacher --method fd" ;;
    bipartite) echo "distill --teacher $out/teacher --variant bipartite" ;;
    cooccurrence) echo "distill --teacher $out/teacher --variant cooccurrence" ;;
    esac
}
student() { # student METHOD WEIGHT:DECAY SEED
    local command extra="" decay=${2#*:}
    read -ra command <<<"$(settings_of "$1")"
    [ "$1" = scratch ] || extra="--weight ${2%:*}"
    # shellcheck disable=SC2086
    later "$1-$2-s$3" lowpass "${command[0]}" "$data" "${command[@]:1}" --dim 20 $extra --weight-decay "$decay" --seed "$3"
}
best() { # the trial of METHOD with the best validation Recall@20
    python3 - "$out" "$1" <<'PY'
import json, pathlib, sys
root, method = pathlib.Path(sys.argv[1]), sys.argv[2]
trials = {p.parent.name: json.loads(p.read_text())["validation"]["Recall@20"] for p in root.glob(f"{method}-*-s0/metrics.json")}
print(max(trials, key=trials.get).removeprefix(f"{method}-").removesuffix("-s0"))
PY
}

run teacher lowpass train "$data" --dim "$teacher_dim" --patience "$teacher_patience" --eval-every 2
for decay in $scratch; do student scratch "0:$decay" 0; done
for trial in $distilled; do for method in fd bipartite cooccurrence; do student $method "$trial" 0; done; done
wait
for method in scratch fd bipartite cooccurrence; do
    for seed in 1 2; do student $method "$(best $method)" $seed; done
done
wait
echo "Trials (seed 0), tuned on validation Recall@20; quality over users with relevant items:"
lowpass compare "$out"/*-s0
winners=("$out/teacher")
for method in scratch fd bipartite cooccurrence; do winners+=("$out/$method-$(best $method)"-s*); done
for average in with-relevant all; do
    echo
    echo "Tuned on validation, mean ± standard deviation over seeds, averaged over users: $average"
    lowpass compare "${winners[@]}" --average $average --plot "$out/curves.png"
done
