//! Packs the texts, and hands the linker what makes the program static, small and free of libc. The latter only for the
//! program: the library and its tests are linked as any other.

use std::path::Path;
use std::{env, fs};

#[path = "src/pack.rs"]
mod pack;
#[path = "src/texts.rs"]
#[expect(dead_code, reason = "only the table is needed here")]
mod texts;

fn main() {
    pack_texts();
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        "-Wl,--no-eh-frame-hdr",
        // One segment, without pages of padding between code and constants.
        "-Wl,-z,norelro",
        "-Wl,-z,noseparate-code",
        &format!("-Wl,-T,{here}/link.ld"),
    ] {
        println!("cargo:rustc-link-arg-bin=fence_wire={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
}

fn pack_texts() {
    let packed = pack::pack(texts::TABLE);
    let source = format!(
        "pub(crate) static TABLE: [u8; {}] = {:?};\npub(crate) static PAIRS: [[u8; 2]; {}] = {:?};\n",
        packed.table.len(),
        packed.table,
        packed.pairs.len(),
        packed.pairs
    );
    let folder = env::var_os("OUT_DIR").expect("cargo names a folder");
    fs::write(Path::new(&folder).join("packed.rs"), source).expect("the folder can be written to");
    println!("cargo:rerun-if-changed=src/pack.rs");
    println!("cargo:rerun-if-changed=src/texts.rs");
}
