//! Random bytes, from the kernel.

use fencewire_core::Entropy;
use fencewire_core::words::ENTROPY_LEN;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// For one connection. Fails only where the system lets this program ask for none.
pub fn entropy() -> io::Result<Entropy> {
    let mut bytes = [0; ENTROPY_LEN];
    // Requests of up to 256 bytes are answered whole.
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        ENTROPY_LEN => Ok(Entropy(bytes)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
