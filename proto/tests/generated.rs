//! The bindings in `src/gen` are what the `.proto` files generate. `make generate` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

use prost::Message as _;

const FILES: [&str; 5] = [
    "wattle/sync/v1/sync.proto",
    "wattle/enroll/v1/enroll.proto",
    "wattle/admin/v1/admin.proto",
    "wattle/store/v1/store.proto",
    "wattle/replica/v1/replica.proto",
];

#[test]
fn bindings_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    generate(root, fresh.path());

    let checked_in = root.join("src/gen");
    if std::env::var_os("WATTLE_GENERATE").is_some() {
        fs::create_dir_all(&checked_in).unwrap();
        for name in names(fresh.path()) {
            fs::copy(fresh.path().join(&name), checked_in.join(&name)).unwrap();
        }
    }
    assert_eq!(names(&checked_in), names(fresh.path()), "run `make generate`");
    for name in names(fresh.path()) {
        let (old, new) = (fs::read(checked_in.join(&name)), fs::read(fresh.path().join(&name)));
        assert!(old.unwrap() == new.unwrap(), "{name} is out of date: run `make generate`");
    }
}

/// protox is a protobuf compiler in Rust, so that nobody needs `protoc`.
fn generate(root: &Path, out: &Path) {
    let descriptors = protox::compile(FILES, [root]).unwrap();
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .btree_map(".")
        // They carry secrets: `src/secrets.rs` writes a `Debug` that hides them.
        .skip_debug([
            "wattle.enroll.v1.EnrollRequest",
            "wattle.admin.v1.CreateJoinTokenResponse",
            "wattle.store.v1.NetworkSecret",
            "wattle.sync.v1.NetworkSecret",
        ])
        .include_file("mod.rs")
        .compile_fds(descriptors)
        .unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
