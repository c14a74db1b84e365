//! Generates the gRPC types; the file descriptor set serves reflection.

fn main() -> std::io::Result<()> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").map_err(std::io::Error::other)?);
    tonic_prost_build::configure()
        .bytes(".bizra.node.v1.Frame")
        .bytes(".bizra.node.v1.SubmitRequest")
        .file_descriptor_set_path(out.join("bizra.bin"))
        .compile_protos(
            &["admin", "events", "ledger", "peer"].map(|name| format!("proto/bizra/node/v1/{name}.proto")),
            &["proto".to_owned()],
        )
}
