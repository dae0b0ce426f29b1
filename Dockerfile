# The sidecar: listens to the hook in vLLM, divides the GPUs' joules, serves /metrics; and the hook itself, for
# images of vLLM that lack it (`hook install`). It needs no privilege and writes nothing but its socket:
#
#   docker run --read-only --gpus all -v joulescope:/run/joulescope -p 5685:5685 joulescope
#
# docs/image.md says how it is built and checked.
FROM python:3.13.1-slim-bookworm AS build
# ledger: with the packages of the ledger, and twice the size.
ARG PACKAGES=sidecar
WORKDIR /src
COPY deploy/image/*.lock ./
# Tools in an environment of their own; that of the sidecar has no pip.
RUN python -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --require-hashes -r build.lock \
 && python -m venv --without-pip /app \
 && /tools/bin/pip --python /app/bin/python install --no-cache-dir --require-hashes -r ${PACKAGES}.lock
COPY pyproject.toml README.md LICENSE ./
COPY joulescope joulescope
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /app/bin/python install --no-cache-dir --no-deps --no-index /wheel/*.whl \
 && install -d /app/share/sbom \
 && /tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /app/share/sbom/joulescope.cdx.json /app/bin/python

FROM python:3.13.1-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="joulescope" \
      org.opencontainers.image.description="Joules of a vLLM server by request: the sidecar, and the hook for vLLM" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 joulescope \
 && useradd --uid 10001 --gid joulescope --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin joulescope \
 && install -d -o joulescope -g joulescope -m 2770 /run/joulescope
COPY --from=build /app /app
# In a C locale `joulescope top` would draw in ASCII, whatever the terminal outside can show.
# NVML comes with the driver and is mounted by NVIDIA's container runtime for this capability alone.
ENV PATH=/app/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 10001:10001
VOLUME /run/joulescope
EXPOSE 5685
ENTRYPOINT ["joulescope"]
CMD ["serve"]
