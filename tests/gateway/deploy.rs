//! fly.toml, the Dockerfile and the binary agree.
