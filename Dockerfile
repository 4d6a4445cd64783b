# Ingle in a container: a home server's image. `docker compose -f deploy/compose.yaml up` uses it.
#
#   docker build -t ingle .
#   docker run -p 127.0.0.1:8000:8000 -v ingle-models:/models -e INGLE_INSECURE=true ingle
#
# llama.cpp's kernels are modules, one for each generation of processors, and the best that a machine
# can run is loaded there: an old CPU gets no illegal instruction, a new one its full speed. amd64 and
# arm64 build alike (`docker buildx build --platform linux/arm64`).
# Behind a proxy: `--secret id=pip,src=/etc/pip.conf` and `--secret id=certificates,src=FILE`.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake g++ ninja-build python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# The engine first: it compiles for a quarter of an hour on two cores, and changes less often than the rest.
ARG ENGINE=llama-cpp-python==0.3.36
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DLLAVA_BUILD=OFF -DCMAKE_INSTALL_BINDIR=llama_cpp/lib" \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/ingle \
    && /opt/ingle/bin/pip install --no-cache-dir --no-binary llama-cpp-python "$ENGINE"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY models/catalog.toml models/catalog.toml
# What only a build needs stays here: headers, copies of libraries, pip itself.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/ingle/bin/pip install --no-cache-dir . \
    && site="$(/opt/ingle/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && rm -rf "${site:?}"/lib "${site:?}"/bin "${site:?}"/include "${site:?}"/llama_cpp/include "${site:?}"/llama_cpp/lib/*.so.0.* \
    && for library in "$site"/llama_cpp/lib/*.so.0; do ln -sf "$(basename "${library%.0}")" "$library"; done \
    && find "$site/numpy" -type d -name tests -prune -exec rm -rf {} + \
    && /opt/ingle/bin/pip uninstall -y pip setuptools \
    && strip --strip-unneeded "$site"/llama_cpp/lib/*.so \
    && /opt/ingle/bin/python -m compileall -q -j 0 "$site"

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
    && mkdir -m 1777 /models /cache
COPY --from=build /opt/ingle /opt/ingle
ENV PATH=/opt/ingle/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    INGLE_HOST=0.0.0.0 \
    INGLE_MODELS_DIR=/models \
    INGLE_CACHE_DIR=/cache/prefixes \
    INGLE_LOG_FORMAT=json
# Any user id will do; nothing is written but /models, /cache and /tmp.
USER 65532:65532
VOLUME ["/models", "/cache"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('INGLE_PORT', 8000)}/readyz\", timeout=4)"]
ENTRYPOINT ["tini", "--", "ingle"]
CMD ["serve"]
