#!/usr/bin/env bash
# Slurm: one task a GPU, all on one --out on a shared file system.
# With --out s3://bucket/prefix (requirements-cloud.txt) the nodes share no folder.
#   sbatch --ntasks=8 --gpus-per-task=1 deploy/slurm.sh --nla PAIR --corpus FILES --out DIR
# Give it a time limit and --requeue: a task that is ended loses one shard, and the next run goes on.
#SBATCH --job-name=nla-precompute
#SBATCH --cpus-per-task=4
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# Each task is one rank; after a requeue its former self is dead, whatever its lease says. The single quotes matter: SLURM_PROCID is known inside of the task only.
srun bash -c '.venv/bin/python -m precompute run "$@" \
  --rank "$SLURM_PROCID" --world-size "$SLURM_NTASKS" --no-publish ${SLURM_RESTART_COUNT:+--take-over}' precompute "$@"

# All shards are there: embed and publish once.
out=""
for ((i = 1; i <= $#; i++)); do
  if [ "${!i}" = --out ]; then next=$((i + 1)) && out="${!next}"; fi
done
exec .venv/bin/python -m precompute publish --out "${out:?name --out DIR}"
