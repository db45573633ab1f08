//! What a guest boots: the image that `tests/setup/guest-image` makes, and behind it an archive of our own programs as
//! they were built last. The kernel unpacks one archive after the other.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::process::{of_the_tests, ours};
use crate::real_libvirt::Host;

/// The whole initramfs; the same for all guests.
static INITRAMFS: OnceLock<Vec<u8>> = OnceLock::new();

/// Puts kernel and initramfs where that host's guests may read them: where they are.
#[track_caller]
pub(super) fn put(host: &Host) -> [PathBuf; 2] {
    let [kernel, initramfs] = ["kernel", "initramfs"].map(|name| host.path(name));
    if !initramfs.exists() {
        let from = part("kernel");
        if fs::hard_link(&from, &kernel).is_err() {
            fs::copy(&from, &kernel).expect("a copy of the kernel");
        }
        fs::write(&initramfs, INITRAMFS.get_or_init(whole)).expect("a file for the initramfs");
    }
    [kernel, initramfs]
}

/// A file of the image, beside our own programs.
#[track_caller]
fn part(name: &str) -> PathBuf {
    let path = ours("fence_wire").with_file_name("guest").join(name);
    assert!(path.exists(), "{} is missing: run `make guest-image`", path.display());
    path
}

fn whole() -> Vec<u8> {
    let mut archive = fs::read(part("initramfs")).expect("the initramfs");
    add(&mut archive, "bin/guest_hand", &of_the_tests("guest_hand"));
    add(&mut archive, "bin/fence_wire", &ours("fence_wire"));
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn add(archive: &mut Vec<u8>, name: &str, program: &Path) {
    let content = fs::read(program).unwrap_or_else(|why| panic!("{} cannot be read: {why}", program.display()));
    entry(archive, name, 0o100_755, &content);
}

/// One entry of an archive as cpio's "newc" has it: thirteen numbers, the name, the content; the latter two padded.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let size = u32::try_from(content.len()).expect("a program of less than 4 GiB");
    let name_size = u32::try_from(name.len() + 1).expect("a short name");
    let mut header = String::from("070701");
    // inode, mode, owner, group, links, time, size, the two devices in two numbers each, the name's size, no checksum.
    for number in [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        write!(header, "{number:08x}").expect("a String takes everything");
    }
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
