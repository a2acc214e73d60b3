# One image for every step of the pipelines: nothing is installed when a step starts.
#   docker build --build-arg BONESEG_COMMIT=$(git rev-parse --short HEAD) --tag ghcr.io/boneseg/boneseg:0.1.0 .
FROM python:3.11.13-slim-bookworm

RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9

WORKDIR /opt/boneseg
COPY requirements.lock ./
RUN uv pip install --system --no-cache --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY boneseg ./boneseg
COPY components ./components
COPY pipelines ./pipelines
RUN uv pip install --system --no-cache --no-deps --no-build-isolation .

# Kept with every published model.
ARG BONESEG_COMMIT=""
ENV BONESEG_COMMIT=${BONESEG_COMMIT} \
    BONESEG_HOME=/var/lib/boneseg \
    HOME=/home/boneseg \
    OMP_WAIT_POLICY=passive \
    PYTHONUNBUFFERED=1

# Group 0 may write as the user does, for clusters that run containers under a random user of that group.
RUN useradd --uid 1000 --gid 0 --create-home --home-dir ${HOME} boneseg \
    && mkdir -p ${BONESEG_HOME} \
    && chown -R 1000:0 ${HOME} ${BONESEG_HOME} \
    && chmod -R g=u ${HOME} ${BONESEG_HOME}
USER 1000:0
WORKDIR /home/boneseg

CMD ["boneseg", "--help"]
