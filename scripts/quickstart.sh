#!/usr/bin/env bash
# Creates .venv, installs the package, draws the predictions of the weights in hub_cards/pcl-small-faces, trains on 30 of
# the 40 people in ORL, from scratch and from these weights, and evaluates the models on the other 10 people:
#   bash scripts/quickstart.sh [SEED]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh demo
seed="${1:-0}"
out="runs/quickstart-seed$seed"
shipped=hub_cards/pcl-small-faces

# glibc returns large blocks to the kernel at every step, which then clears them again; these settings keep them.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1
# One thread computes while another process decodes. More threads gain little with a model this small, and on busy cores
# they wait for each other a hundred times longer than they work.
export OMP_NUM_THREADS=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
rm -rf "$out"

echo "1/4  Predictions of the shipped weights for people 31 to 40"
.venv/bin/pcl show "$shipped" --corpus orl --subjects s31-s40 --output_dir "$out/shown"

echo "2/4  Training on people 1 to 30: from scratch, about two minutes, and from these weights, about one"
options="--recipe small --corpus orl --subjects s1-s30 --seed $seed --batch_size 30 --picture_steps 250 --save_steps 250
  --logging_steps 25"
# A quarter of the width at 48 px, with 30 images per batch because there are 30 people.
.venv/bin/pcl pretrain $options --output_dir "$out/scratch" --width 0.25 --image_size 48 --steps 500 --warmup_steps 50
# A tenth of the learning rate, so that few images do not undo what the weights learned from many.
.venv/bin/pcl pretrain $options --output_dir "$out/continued" --init_from "$shipped" --steps 100 --warmup_steps 10 \
  --learning_rate 0.002

echo "3/4  Face verification of people 31 to 40, who are in the training data of neither model"
.venv/bin/pcl probe "$out/scratch" --task verification --test orl --test_subjects s31-s40 --pairs 900 --folds 2 \
  --output_dir "$out/scratch/verification"
.venv/bin/pcl compare "$out/scratch" "$out/continued" "$shipped" --names scratch continued shipped --tasks verification \
  --output_dir "$out/comparison" | tee "$out/summary.txt"

echo "4/4  Drawing unseen faces in each other's pose by the model trained from scratch"
.venv/bin/pcl swaps "$out/scratch" --corpus orl --subjects s31-s40 --output_dir "$out/unseen"

cat <<EOF

The shipped weights  $out/shown/ (answers.png, neighbours.png, swaps.png)
The models           $out/scratch, $out/continued (PCLModel.from_pretrained opens them)
Verification         $out/comparison/ (comparison.md, comparison.png, and a folder for each model)
Pictures             $out/unseen/ (swaps.png, turns.png, reconstructions.png), $out/scratch/pictures/
Loss curves          .venv/bin/tensorboard --logdir $out
Records of the runs  $out/scratch/run.json, $out/continued/run.json
EOF
