"""What launch/ starts: the scripts run with stand-ins for the cloud's tools, and the manifest fits its slice."""

import os
import subprocess

from conftest import REPO
import pytest
import yaml

_SCRIPTS = ("queued_resource.sh", "xpk.sh")
_ARGUMENTS = ("run1", "gs://bucket", "--config=configs/s2mlp_wide.py", "--config.model.norm_position=pre")


def _run(script, tmp_path, *arguments, **environment):
  """The script's (exit code, output); `gcloud` and `xpk` print their arguments, and every slice is active."""
  for tool in ("gcloud", "xpk"):
    path = tmp_path / tool
    path.write_text('#!/bin/sh\ncase "$*" in *describe*) echo ACTIVE ;; *) printf "%s\\n" "$@" ;; esac\n')
    path.chmod(0o755)
  env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
  command = ["bash", REPO / "launch" / script, *arguments]
  done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
  return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_trains_with_the_flags_it_is_given(script, tmp_path):
  code, output = _run(script, tmp_path, *_ARGUMENTS, ZONE="z", CLUSTER="c", IMAGE="i")
  assert code == 0, output
  (train,) = (line for line in output.splitlines() if "train.py" in line)
  words = output[output.index("train.py") :].split()
  flags = ("--workdir=gs://bucket/runs/run1", "--config.data.data_dir=gs://bucket/tfds", *_ARGUMENTS[2:])
  assert [word for word in words if word in flags] == list(flags), train


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_says_how_it_is_used(script, tmp_path):
  code, output = _run(script, tmp_path)
  assert code == 2
  assert f"./launch/{script} NAME gs://BUCKET --config=" in output
  code, output = _run(script, tmp_path, *_ARGUMENTS)
  assert code != 0
  assert ("ZONE" if "queued" in script else "CLUSTER") in output


def test_the_manifest_is_of_a_whole_slice():
  manifest = yaml.safe_load((REPO / "launch" / "gke_jobset.yaml").read_text())
  (job,) = manifest["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  chips = container["resources"]["limits"]["google.com/tpu"]
  rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
  assert spec["parallelism"] == spec["completions"] == rows * columns / chips
  assert (REPO / container["args"][0].removeprefix("--config=")).exists()


def test_the_container_installs_what_pyproject_names():
  text = (REPO / "Dockerfile").read_text()
  extras = (REPO / "pyproject.toml").read_text()
  for extra in ("quickstart", "cuda", "tpu"):
    assert f"\n{extra} = [" in extras
    assert extra in text
