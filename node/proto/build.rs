//! Generates the gRPC types; the file descriptor set serves reflection.

fn main() -> std::io::Result<()> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").map_err(std::io::Error::other)?);
    let files = ["admin", "events", "ledger", "peer"].map(|name| format!("proto/bizra/node/v1/{name}.proto"));
    // Otherwise it would run again for every date that changes in this package.
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        .bytes(".bizra.node.v1.Frame")
        .bytes(".bizra.node.v1.SubmitRequest")
        .file_descriptor_set_path(out.join("bizra.bin"))
        .compile_protos(&files, &["proto".to_owned()])
}
