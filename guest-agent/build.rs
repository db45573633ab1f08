//! Hands the linker what makes the program static, small and free of libc. Only for the program: the library and its
//! tests are linked as any other.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
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
