#!/usr/bin/env bash
# Makes .venv, installs, pre-trains a narrow PCL model on 30 of the 40 ORL people, and checks on the other 10 what it
# has learned: bash scripts/quickstart.sh [SEED]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh demo
seed="${1:-0}"
out="runs/quickstart-seed$seed"

# glibc hands large blocks back to the kernel at every step; kept, they are not cleared anew each time.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1
# One thread computes while another process decodes: on so small a model more threads gain little, and on busy cores they
# wait for each other a hundred times longer than they work.
export OMP_NUM_THREADS=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

echo "1/3  Pre-training on subjects 1 to 30, about two minutes"
rm -rf "$out"
# A quarter of the width at 48 px; thirty subjects, so thirty images a batch.
.venv/bin/pcl pretrain --recipe small --corpus orl --subjects s1-s30 --output_dir "$out" --seed "$seed" \
  --width 0.25 --image_size 48 --steps 500 --batch_size 30 --warmup_steps 50 \
  --picture_steps 250 --save_steps 250 --logging_steps 25

echo "2/3  Same person or not? Subjects 31 to 40, whom the model has not seen"
.venv/bin/pcl probe "$out" --task verification --test orl --test_subjects s31-s40 --pairs 900 --folds 2 \
  --output_dir "$out/verification"
.venv/bin/pcl compare "$out" --names trained --output_dir "$out/comparison" | tee "$out/summary.txt"

echo "3/3  Drawing unseen faces in each other's pose"
.venv/bin/pcl swaps "$out" --corpus orl --subjects s31-s40 --output_dir "$out/unseen"

cat <<EOF

The model            $out   (PCLModel.from_pretrained("$out") opens it)
Verification         $out/comparison/ (comparison.md, comparison.png, and a folder for each model)
Pictures             $out/unseen/swaps.png, $out/unseen/reconstructions.png, $out/pictures/
Loss curves          .venv/bin/tensorboard --logdir $out/logs
What the run was     $out/run.json
EOF
