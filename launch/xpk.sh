#!/usr/bin/env bash
# Trains on slices of an XPK cluster (https://github.com/AI-Hypercomputer/xpk), with an image made of the Dockerfile.
#
#   CLUSTER=... ZONE=... IMAGE=... ./launch/xpk.sh NAME gs://BUCKET --config=configs/s2mlp_wide.py
#
# TPU_TYPE (v5litepod-16) and NUM_SLICES (1) can be set. The flags are those of XPK 1.16.0.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 bucket=$2
shift 2
: "${CLUSTER:?}" "${ZONE:?}" "${IMAGE:?an image of the Dockerfile, built with EXTRA=tpu}"

# XPK restarts after 42 and 127 to 255; 75 is what a run exits with that has lost another host. SIGTERM saves, which may
# take longer than XPK's 30 s.
xpk workload create --cluster="$CLUSTER" --zone="$ZONE" --workload="$name" --docker-image="$IMAGE" \
  --tpu-type="${TPU_TYPE:-v5litepod-16}" --num-slices="${NUM_SLICES:-1}" \
  --max-restarts=100 --restart-on-exit-codes=75 --termination-grace-period-seconds=120 \
  --command="cd /mlpvision && exec launch/pod.sh --workdir=$bucket/runs/$name \
    --config.data.data_dir=$bucket/tfds $(printf '%q ' "$@")"
