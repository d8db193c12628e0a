"""What launch/ starts: the scripts run with stand-ins for the cloud's tools, and the manifest fits API and slice.

`test_processes.py` trains through pod.sh with two processes.
"""

import os
import pathlib
import subprocess
import sysconfig

from conftest import REPO
import pytest
import yaml

_SCRIPTS = ("queued_resource.sh", "xpk.sh")
_ARGUMENTS = ("run1", "gs://bucket", "--config=configs/s2mlp_wide.py", "--config.model.norm_position=pre")


def _run(script, tmp_path, *arguments, state="ACTIVE", **environment):
  """The script's (exit code, output); `gcloud` and `xpk` print their arguments, and every slice is in `state`."""
  for tool in ("gcloud", "xpk"):
    path = tmp_path / tool
    path.write_text(f'#!/bin/sh\ncase "$*" in *describe*) echo {state} ;; *) printf "%s\\n" "$@" ;; esac\n')
    path.chmod(0o755)
  env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
  command = ["bash", REPO / "launch" / script, *arguments]
  done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
  return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_trains_with_the_flags_it_is_given(script, tmp_path):
  code, output = _run(script, tmp_path, *_ARGUMENTS, ZONE="z", CLUSTER="c", IMAGE="i")
  assert code == 0, output
  (train,) = (line for line in output.splitlines() if "train.py" in line or "pod.sh" in line)
  words = output[output.index(train) :].split()
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


def test_a_request_that_is_refused_is_not_waited_for(tmp_path):
  code, output = _run("queued_resource.sh", tmp_path, *_ARGUMENTS, state="FAILED", ZONE="z")
  assert code == 1
  assert "error: run1 is FAILED" in output
  assert "\ndelete\n" in output  # one of before


def test_shell_scripts_are_without_faults():
  shellcheck = pathlib.Path(sysconfig.get_path("scripts"), "shellcheck")
  scripts = [*(REPO / "launch").glob("*.sh"), REPO / ".ci" / "run"]
  done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
  ("ends", "code"), [("exit 75", 75), ("exit 0", 0), ("echo started; while :; do sleep 0.1; done", 143)]
)
def test_a_pod_that_is_told_to_stop_has_not_succeeded(tmp_path, ends, code):
  """`python` is a shell here; it exits with 0 on SIGTERM, as train.py does."""
  (tmp_path / "python").write_text(f"#!/bin/bash\ntrap 'echo \"saved $*\"; exit 0' TERM\n{ends}\n")
  (tmp_path / "python").chmod(0o755)
  env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
  command = ["launch/pod.sh", "--workdir=a b"]
  pod = subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.PIPE, text=True)
  if code == 143:
    assert pod.stdout.readline() == "started\n"
    pod.terminate()
  output = pod.communicate(timeout=10)[0]
  assert pod.returncode == code
  assert output == ("saved train.py --workdir=a b\n" if code == 143 else "")


def _manifest():
  return yaml.safe_load((REPO / "launch" / "gke_jobset.yaml").read_text())


def _unknown_fields(manifest):
  """The paths of fields that the API does not have; its classes leave them out. ValueError where a type is wrong."""
  from kubeflow_trainer_api.models import jobset_v1alpha2_job_set as schema

  return _left_out(manifest, schema.JobsetV1alpha2JobSet.from_dict(manifest).to_dict())


def _left_out(given, kept, path=""):
  if isinstance(given, dict):
    unknown = [f"{path}.{name}" for name in given if name not in kept]
    return unknown + [x for name in given if name in kept for x in _left_out(given[name], kept[name], f"{path}.{name}")]
  if isinstance(given, list):
    pairs = zip(given, kept, strict=True)
    return [x for i, (a, b) in enumerate(pairs) for x in _left_out(a, b, f"{path}[{i}]")]
  assert given == kept, path
  return []


def test_the_manifest_has_the_fields_and_types_of_the_api():
  manifest = _manifest()
  assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert _unknown_fields(manifest) == []


def _job(manifest):
  return manifest["spec"]["replicatedJobs"][0]


def _pod(manifest):
  return _job(manifest)["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
  ("place", "field", "value"),
  [
    (lambda x: x["spec"]["failurePolicy"], "maxRestarts", "100"),
    (_job, "template", None),
    (_pod, "containers", None),
    (_pod, "restartPolicy", "Sometimes"),
    (lambda x: _pod(x)["containers"][0], "args", "--config=configs/s2mlp_wide.py"),
    (lambda x: _pod(x)["containers"][0]["ports"][0], "containerPort", "8471"),
  ],
)
def test_a_wrong_type_and_a_missing_field_are_found(place, field, value):
  """None is for a field that is not there."""
  manifest = _manifest()
  place(manifest)[field] = value
  with pytest.raises(ValueError, match=rf"\n{field}\n"):
    _unknown_fields(manifest)


def test_a_field_that_the_api_does_not_have_is_found():
  manifest = _manifest()
  manifest["spec"]["restarts"] = 100
  _pod(manifest)["containers"][0]["arguments"] = []
  job = ".spec.replicatedJobs[0].template.spec.template.spec.containers[0]"
  assert _unknown_fields(manifest) == [".spec.restarts", f"{job}.arguments"]


def test_the_manifest_is_of_a_whole_slice():
  manifest = _manifest()
  (job,) = manifest["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  chips = container["resources"]["limits"]["google.com/tpu"]
  rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
  assert spec["parallelism"] == spec["completions"] == rows * columns / chips
  assert (REPO / container["args"][0].removeprefix("--config=")).exists()
  assert (REPO / container["command"][0].removeprefix("/mlpvision/")).exists()


def test_the_container_installs_what_pyproject_names():
  text = (REPO / "Dockerfile").read_text()
  extras = (REPO / "pyproject.toml").read_text()
  for extra in ("quickstart", "cuda", "tpu"):
    assert f"\n{extra} = [" in extras
    assert extra in text
