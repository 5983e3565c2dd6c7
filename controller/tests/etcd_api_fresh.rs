//! `etcd-api/descriptors.bin` stands in for protoc when etcd-client is built; this test proves that it is what etcd-client's
//! own .proto files give. `DYSVR_BLESS=1 cargo test -p dysvr-controller --test etcd_api_fresh` writes it anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;

/// Those that etcd-client's build script compiles, in its order.
const FILES: [&str; 5] = [
    "etcd/api/authpb/auth.proto",
    "etcd/api/etcdserverpb/rpc.proto",
    "etcd/api/mvccpb/kv.proto",
    "etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto",
    "etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto",
];

#[test]
fn descriptors_are_those_of_the_etcd_client_that_is_built() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = etcd_client(here);
    let script = std::fs::read_to_string(client.join("build.rs")).unwrap();
    for file in FILES {
        assert!(script.contains(file), "etcd-client's build script no longer compiles {file}");
    }
    assert_eq!(script.matches(".proto\"").count(), FILES.len(), "etcd-client's build script compiles other files");

    // Without comments and places: nobody reads the generated code.
    let mut compiler = protox::Compiler::new([client.join("proto")]).unwrap();
    compiler.include_imports(true).include_source_info(false).open_files(FILES).unwrap();
    let fresh = compiler.file_descriptor_set().encode_to_vec();
    let kept = here.join("etcd-api/descriptors.bin");
    if std::env::var_os("DYSVR_BLESS").is_some() {
        std::fs::write(&kept, &fresh).unwrap();
    }
    assert!(
        std::fs::read(&kept).unwrap() == fresh,
        "{} is stale: run DYSVR_BLESS=1 cargo test -p dysvr-controller --test etcd_api_fresh",
        kept.display()
    );
}

/// Where cargo has the sources of etcd-client, of the version that Cargo.lock names.
fn etcd_client(here: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // For this machine only: what other platforms need was never downloaded.
    let rustc = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let host =
        String::from_utf8(rustc).unwrap().lines().find_map(|l| Some(l.strip_prefix("host: ")?.to_owned())).unwrap();
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &host])
        .arg("--manifest-path")
        .arg(here.join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "etcd-client").expect("etcd-client is used");
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}
