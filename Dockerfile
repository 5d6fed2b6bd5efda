# syntax=docker/dockerfile:1

# --- Build ---------------------------------------------------------------------------------------
FROM rust:1.95.0-slim-bookworm AS program
RUN apt-get update \
  && apt-get install -y --no-install-recommends cmake g++ make \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin june \
  && cp target/release/june /usr/local/bin/june

# --- Models --------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS models
COPY scripts /src/scripts
RUN JUNE_CACHE=/june /src/scripts/setup models

# --- livekit-client, for the talk page ------------------------------------------------------------
FROM node:20-slim AS web
COPY scripts /src/scripts
RUN JUNE_CACHE=/june /src/scripts/setup web

# --- Run time ------------------------------------------------------------------------------------
# Without the model of `scripts/setup smollm2`: the image answers by the echo model until an LLM is configured
# (docs/OPERATIONS.md).
FROM debian:bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin june \
  && install -d -o june -g june /data
COPY --from=models /june/models /usr/share/june/models
COPY --from=web /june/web /usr/share/june/web
COPY --from=program /usr/local/bin/june /usr/local/bin/june
COPY scripts/start-in-container /usr/local/bin/start-in-container
ENV DATA_DIR=/data JUNE_MODELS=/usr/share/june/models
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/start-in-container"]
CMD ["june", "serve"]
