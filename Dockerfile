# mlpvision on CPU, GPU or TPU VMs: the README's installation in a container.
#
#   docker build -t mlpvision .                                  CPU
#   docker build -t mlpvision --build-arg EXTRA=cuda .           NVIDIA GPUs; run with --gpus all
#   docker build -t mlpvision --build-arg EXTRA=tpu .            TPU VMs; run with --privileged --net=host
#   docker run --rm -v $PWD/runs:/mlpvision/runs mlpvision       the quickstart
FROM python:3.13-slim

ARG EXTRA=quickstart
WORKDIR /mlpvision
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -e ".[quickstart,${EXTRA}]"
ENV PATH=/mlpvision/.venv/bin:$PATH

ENTRYPOINT ["python", "train.py"]
CMD ["--config=configs/quickstart.py"]
