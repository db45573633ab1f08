//! What these tests share: the XML of a channel, and its guest's end.

use std::path::Path;

use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::libvirt_file::uuid_of;

use fencewire_core::Uuid;

/// The name of the channels that are found.
pub(crate) const NAME: &str = "org.fencewire.fence.0";

/// The XML of a virtio channel that is found by its name.
pub(crate) fn channel(path: &Path) -> String {
    device("channel", path, &format!("<target type='virtio' name='{NAME}'/>"))
}

/// The XML of a serial port.
pub(crate) fn serial(path: &Path) -> String {
    device("serial", path, "<target port='1'/>")
}

fn device(kind: &str, path: &Path, target: &str) -> String {
    let path = path.to_str().expect("a test's paths are UTF-8");
    format!("<{kind} type='unix'><source mode='bind' path='{path}'/>{target}</{kind}>")
}

/// The UUID of a guest of that name.
pub(crate) fn uuid(name: &str) -> Uuid {
    Uuid::parse(uuid_of(name).as_bytes()).expect("a UUID")
}

/// The guest's end of a channel that a bridge has connected to.
#[track_caller]
pub(crate) fn connected(channel: &mut GuestChannel) {
    channel.accept(fencewire_tests::process::DEADLINE);
}
