//! Something between QEMU's socket and the bridge that hands everything on and keeps a copy of what the guest has said.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use fencewire_tests::process::{DEADLINE, wait_until};

/// For one connection of a bridge; closed when dropped.
#[derive(Debug)]
pub(crate) struct Tap {
    path: PathBuf,
    heard: Arc<Mutex<Vec<u8>>>,
    guest: UnixStream,
}

impl Tap {
    /// Listens beside the socket that it taps.
    #[track_caller]
    pub(crate) fn on(socket: &Path) -> Self {
        let path = socket.with_extension("tap");
        let guest = wait_until(DEADLINE, "QEMU to listen", || UnixStream::connect(socket).ok());
        let listener = UnixListener::bind(&path).expect("a socket");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tap = Self { path, heard: Arc::clone(&heard), guest: guest.try_clone().expect("a second handle") };
        // Both end with their streams, at the latest with the test program.
        thread::spawn(move || -> io::Result<()> {
            let (mut bridge, _) = listener.accept()?;
            let [mut from, mut to] = [bridge.try_clone()?, guest.try_clone()?];
            thread::spawn(move || io::copy(&mut from, &mut to));
            let (mut guest, mut buffer) = (guest, [0; 4096]);
            loop {
                match guest.read(&mut buffer)? {
                    0 => return bridge.shutdown(Shutdown::Both),
                    read => {
                        heard.lock().expect("no panic while it was held").extend_from_slice(&buffer[..read]);
                        bridge.write_all(&buffer[..read])?;
                    }
                }
            }
        });
        tap
    }

    /// Where the bridge is to connect.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the guest has said since this was asked last.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.heard.lock().expect("no panic while it was held"))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.guest.shutdown(Shutdown::Both).ok();
    }
}
