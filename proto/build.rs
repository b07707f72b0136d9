//! Compiles the .proto files with protox: no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["hongbao/v1/client.proto", "hongbao/report/v1/report.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
