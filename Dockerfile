# The sidecar: reads the GPUs, listens to the hook in vLLM, serves /metrics. It needs no privilege, only
# the GPUs of the engine it watches and the directory of the socket that both share:
#
#   docker run --gpus all -v joulescope:/run/joulescope -p 5685:5685 joulescope
FROM python:3.13.1-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY joulescope joulescope
RUN python -m venv /app && /app/bin/pip install --no-cache-dir '.[sidecar]'

FROM python:3.13.1-slim-bookworm
RUN groupadd --system --gid 10001 joulescope \
 && useradd --system --uid 10001 --gid joulescope --no-create-home --shell /usr/sbin/nologin joulescope \
 && install -d -o joulescope -g joulescope -m 2770 /run/joulescope
COPY --from=build /app /app
# In a C locale `joulescope top` would draw in ASCII, whatever the terminal outside can show.
# NVML comes with the driver and is mounted by NVIDIA's container runtime for this capability alone.
ENV PATH=/app/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LANG=C.UTF-8 \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 10001:10001
VOLUME /run/joulescope
EXPOSE 5685
ENTRYPOINT ["joulescope"]
CMD ["serve"]
