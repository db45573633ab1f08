//! Hands the linker its script, so that a plain `cargo build --target …` links.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    println!("cargo:rustc-link-arg-bins=-T{here}/link.ld");
    println!("cargo:rustc-link-arg-examples=-T{here}/link.ld");
    println!("cargo:rerun-if-changed=link.ld");
}
