# The product image: the operator and the node, for Kubernetes.
#
#   docker build -t bizra .                                        builds both from source
#   buildah bud --build-arg BINARIES=prebuilt ...                  takes them from prebuilt/ in the build context
#   ... --build-arg BASE_IMAGE=...                                 another base with glibc and libstdc++
#
# The last stage runs no command, so the base may be as small as it likes.
ARG BASE_IMAGE=debian:bookworm-slim
ARG BUILDER_IMAGE=rust:1.95-bookworm
# source or prebuilt
ARG BINARIES=source

FROM ${BUILDER_IMAGE} AS binaries-source
# RocksDB is C++ and its bindings come from clang; the protocol files are compiled by protoc.
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang cmake libclang-dev make protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package bizra-operator --bin bizra-operator --package bizra-node --bin bizra-node \
    && strip --strip-debug target/release/bizra-operator target/release/bizra-node \
    && mv target/release/bizra-operator target/release/bizra-node /

FROM scratch AS binaries-prebuilt
COPY prebuilt/bizra-operator prebuilt/bizra-node /

FROM binaries-${BINARIES} AS binaries

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="bizra" \
      org.opencontainers.image.description="Operator and node of a Byzantine-fault-tolerant validator network" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=binaries /bizra-operator /bizra-node /usr/local/bin/
# A number, so that the kubelet can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/bizra-node"]
