#!/usr/bin/env bash
# Trains on a TPU pod that is created for it: waits for a queued resource, installs mlpvision on every host, and trains.
# Run it from a clone, again after a preemption: the run resumes from its newest checkpoint.
#
#   ZONE=us-west4-a ./launch/queued_resource.sh NAME gs://BUCKET --config=configs/s2mlp_wide.py
#
# ACCELERATOR (v5litepod-16), RUNTIME (v2-alpha-tpuv5-lite) and SPOT (--spot; empty for on demand) can be set. The flags
# were checked against the pages of 2025 of Google's reference of gcloud.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 bucket=$2
shift 2
: "${ZONE:?set ZONE, as in the example at the top of this file}"
accelerator=${ACCELERATOR:-v5litepod-16} runtime=${RUNTIME:-v2-alpha-tpuv5-lite} spot=${SPOT---spot}
cd "$(dirname "$0")/.."

on_all_hosts() { gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$1"; }

state() {
  gcloud compute tpus queued-resources describe "$name" --zone="$ZONE" --format='value(state.state)' 2>/dev/null || true
}

case $(state) in
  SUSPENDED | FAILED) # preempted, or never granted
    gcloud compute tpus queued-resources delete "$name" --zone="$ZONE" --quiet --force
    ;;
esac
if [ -z "$(state)" ]; then
  gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$ZONE" \
    --accelerator-type="$accelerator" --runtime-version="$runtime" ${spot:+"$spot"}
fi
while now=$(state) && [ "$now" != ACTIVE ]; do
  case $now in
    SUSPENDED | FAILED) # refused, or preempted before it was used
      echo "error: $name is $now; run this again to request it anew" >&2
      exit 1
      ;;
  esac
  echo "waiting for $name: $now"
  sleep 30
done

gcloud compute tpus tpu-vm scp --recurse . "$name:mlpvision" --zone="$ZONE" --worker=all
# The hosts' own Python can be older than what mlpvision needs.
on_all_hosts "cd mlpvision && PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv \
  && python3 -m uv venv -q --allow-existing --python=3.13 .venv && python3 -m uv pip install -q --python=.venv -e '.[tpu]'"
on_all_hosts "cd mlpvision && .venv/bin/python train.py --workdir=$bucket/runs/$name \
  --config.data.data_dir=$bucket/tfds $(printf '%q ' "$@")"
