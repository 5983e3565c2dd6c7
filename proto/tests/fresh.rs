//! The generated code is committed, so that a build needs no protoc; this test proves that it is what the .proto files
//! give. `DYSVR_BLESS=1 cargo test -p dysvr-proto --test fresh` writes it anew.

use std::path::Path;

use prost::Message as _;

#[test]
fn generated_code_is_fresh() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = here.join("src/gen");
    let out = tempfile::tempdir().unwrap();

    let descriptors = protox::compile(["dysvr/fleet.proto", "dysvr/operator.proto"], [here]).unwrap();
    std::fs::write(out.path().join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(descriptors).unwrap();

    for entry in std::fs::read_dir(out.path()).unwrap() {
        let fresh = entry.unwrap().path();
        let kept = committed.join(fresh.file_name().unwrap());
        let new = std::fs::read(&fresh).unwrap();
        if std::env::var_os("DYSVR_BLESS").is_some() {
            std::fs::write(&kept, &new).unwrap();
        }
        assert!(
            std::fs::read(&kept).is_ok_and(|old| old == new),
            "{} is stale: run DYSVR_BLESS=1 cargo test -p dysvr-proto --test fresh",
            kept.display()
        );
    }
}
