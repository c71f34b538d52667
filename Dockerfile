# The program with what it needs, on the CPU:
#   docker build -t cosine-restarts --build-arg COMMIT="$(git rev-parse HEAD)" .
# for NVIDIA GPUs, whose driver is the host's (docker run --gpus all), the wheels of a CUDA version:
#   docker build -t cosine-restarts --build-arg TORCH=cu130 --build-arg COMMIT="$(git rev-parse HEAD)" .
# Results, store and data are in the folder that is mounted at /results:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/results" cosine-restarts python /opt/cosine-restarts/train.py -m …
FROM python:3.11-slim-bookworm

ARG TORCH=cpu
ARG EXTRAS=parallel,ray

WORKDIR /opt/cosine-restarts
COPY constraints.txt ./
# PyTorch's own index has few versions of other packages; of torch, pip prefers its 2.x.y+cpu to PyPI's 2.x.y
RUN pip install --no-cache-dir --constraint constraints.txt torch torchvision \
    --index-url "https://download.pytorch.org/whl/$TORCH" --extra-index-url https://pypi.org/simple

COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[$EXTRAS]"

# the copy has no repository: what results record as the program's commit
ARG COMMIT=
ENV HARNESS_COMMIT=$COMMIT HARNESS_DATA=/results/data HARNESS_STORE=/results/trajectories PYTHONUNBUFFERED=1

WORKDIR /results
CMD ["python", "/opt/cosine-restarts/train.py", "--help"]
