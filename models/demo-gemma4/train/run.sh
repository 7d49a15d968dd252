#!/bin/sh
# Repeats the training: about an hour and a half on two free cores.   run.sh DATA_DIR OUT_DIR
# (needs espeak-ng, a C++ compiler for torch.compile and the Python packages in ../README.md)
set -e
mkdir -p "$1" "$2"; W=$(cd "$1" && pwd) OUT=$(cd "$2" && pwd) PY=${PYTHON:-python3}
cd "$(dirname "$0")"
n=0; for c in 3000 4000 5000 6000; do $PY make_audio.py $c $((101 + n)) "$W/train$n.npz" train; n=$((n + 1)); done
$PY make_audio.py 160 201 "$W/dev_voice.npz" voice
$PY make_audio.py 160 202 "$W/dev_combo.npz" combo
$PY make_images.py 300 401 "$W/img_dev" heldout
for k in 0 1; do $PY make_images.py 6000 $((301 + k)) "$W/img_train$k" train; done
# one core each: hearing (then speech with text) beside seeing
(
    $PY train.py --minutes 2 --lr 2e-3 --tasks text=1 --data "$W" --out "$W/text.pt"
    $PY train_ctc.py 6 "$W/audio.pt" "$W"/train[0-3].npz
    $PY train.py --minutes 7 --lr 1.6e-3 --warm .03 --floor .3 --tasks asr=2,json=1,text=0.3 --aux 0.4 --compile ad --init "$W/text.pt" --audio "$W/audio.pt" --data "$W" --out "$W/speech.pt"
) & speech=$!
$PY train.py --minutes 14 --lr 2e-3 --tasks look=1 --keep 30 --full 0.12 --compile v --data "$W" --out "$W/look.pt"
wait $speech
both() {   # two data-parallel processes
    for r in 0 1; do RANK=$r WORLD=2 $PY train.py --compile avd --data "$W" "$@" & done
    wait
}
PROCS=2 $PY make_images.py 7000 911 "$W/img_train2" train
MIX="asr=2.2,json=1.6,see=3,text=0.8"
both --minutes 18 --lr 1.6e-3 --warm .02 --floor .02 --tasks $MIX --aux 0.4 --init "$W/speech.pt" --vision "$W/look.pt" --seed 11 --out "$W/all.pt"
$PY export.py "$W/all.pt" "$OUT" "$W"
# the "mobile" form: weights of 2, 4 and 8 bits, static activation scales
both --minutes 13 --lr 8e-4 --warm .02 --floor .02 --tasks asr=2.4,json=1.8,see=2.4,text=1 --aux 0.3 --scale-lr 2 --quant embed=2,audio=2 --init "$W/all.pt" --seed 41 --out "$W/qat.pt"
$PY export_mobile.py "$W/qat.pt" "$OUT/mobile" "$OUT"
