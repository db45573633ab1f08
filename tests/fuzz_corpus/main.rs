//! The fuzz targets over the inputs that fuzzing has kept, with the stable compiler: `tests/fuzz/corpus/`. `make fuzz`
//! looks for more of them.

#[allow(unreachable_pub, reason = "it is a crate of its own to the fuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// A corpus: inputs, each behind its length, of two bytes, the lower first.
fn inputs(name: &str) -> Vec<Vec<u8>> {
    let path = folder().join("corpus").join(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rest = &bytes[..];
    let mut inputs = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (input, behind) = behind.split_at_checked(u16::from_le_bytes(*length).into()).expect("a whole input");
        inputs.push(input.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty(), "{}: half a length at the end", path.display());
    inputs
}

/// Over all inputs of one target; says which one failed.
fn replay(name: &str) {
    let (_, target): (_, Target) = *TARGETS.iter().find(|(other, _)| *other == name).expect("one of the targets");
    let inputs = inputs(name);
    assert!(inputs.len() >= 10, "{name}: only {} inputs", inputs.len());
    for input in inputs {
        let failed = catch_unwind(|| target(&input)).is_err();
        assert!(!failed, "{name}: this input broke a promise, see above: {input:?}");
    }
}

macro_rules! replayed {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed!(
    serial_request,
    serial_stream,
    serial_entry,
    packet_request,
    key,
    serial_client,
    packet_client,
    serial_listener,
    packet_listener,
    ledger,
    native_frames,
    native_messages,
    native_client,
    native_listener,
    mixed_listener,
    native_pair,
);

/// A target that is fuzzed and not replayed, or the other way about, is looked after by nobody.
#[test]
fn every_target_is_fuzzed_and_replayed() {
    let stems = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("the folder is there");
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        entries.map(|entry| stem(entry.expect("can be read").path())).collect()
    };
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named, stems(folder().join("fuzz_targets")));
    assert_eq!(named, stems(folder().join("corpus")));
    assert_eq!(named, REPLAYED.iter().map(|name| (*name).to_owned()).collect());
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("it is there");
    for name in &named {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in Cargo.toml");
        let target = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).expect("it is there");
        assert!(target.contains(&format!("fencewire_fuzz::{name}(input)")), "{name}: another body");
    }
}
