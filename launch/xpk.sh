#!/usr/bin/env bash
# Trains on slices of an XPK cluster (https://github.com/AI-Hypercomputer/xpk), with an image made of the Dockerfile.
#
#   CLUSTER=... ZONE=... IMAGE=... ./launch/xpk.sh NAME gs://BUCKET --config=configs/s2mlp_wide.py
#
# TPU_TYPE (v5litepod-16) and NUM_SLICES (1) can be set.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 bucket=$2
shift 2
: "${CLUSTER:?}" "${ZONE:?}" "${IMAGE:?an image of the Dockerfile, built with EXTRA=tpu}"

xpk workload create --cluster="$CLUSTER" --zone="$ZONE" --workload="$name" --docker-image="$IMAGE" \
  --tpu-type="${TPU_TYPE:-v5litepod-16}" --num-slices="${NUM_SLICES:-1}" --max-restarts=100 \
  --command="cd /mlpvision && python train.py --workdir=$bucket/runs/$name \
    --config.data.data_dir=$bucket/tfds $(printf '%q ' "$@")"
