#!/usr/bin/env bash
# Trains in a pod of Kubernetes, from the repository's root: ./launch/pod.sh --config=... --workdir=...
#
# train.py saves on SIGTERM and exits with 0. Kubernetes would take that for the end of the training, and not restart
# what was preempted (since 1.27, the exit code decides of a deleted pod too). After SIGTERM, this exits with 143.
set -u
python train.py "$@" &
run=$!
trap 'kill -TERM "$run"; wait "$run"; exit 143' TERM
wait "$run"
