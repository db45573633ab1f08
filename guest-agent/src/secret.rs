//! Which wire is spoken on a channel, and with what key.
//!
//! Whoever has a native key speaks nothing but the native wire with it: a file that is meant to be one, and is none, is an
//! error and no reason for another wire. Not here: the key for TCP (see `tcp`).

use crate::order::{Order, Wire};
use crate::system::{Errno, Path, System};
pub(crate) use fencewire_core::native::keys::Keys;
use fencewire_core::native::keys::{FILE_LEN, is_native_file};
use fencewire_core::{Entropy, Speak};
use zeroize::Zeroize;

/// How the native wire is spoken; none where the kernel has no random bytes.
pub(crate) fn speak_native<'k, S: System>(system: &S, keys: &'k Keys, entropy: &mut Entropy) -> Option<Speak<'k>> {
    let mut id = [0; 8];
    let is_random = system.entropy(&mut entropy.0) && system.entropy(&mut id);
    is_random.then_some(Speak::Native { keys, id: u64::from_le_bytes(id), guard: None })
}

/// Reads the keys of the native wire. Says whether that is what is to be spoken; if not, they are of no use.
#[inline(never)]
pub(crate) fn native_keys<S: System>(system: &S, order: &Order<'_>, keys: &mut Keys) -> Result<bool, Errno> {
    let Some(file) = order.secret else { return Ok(order.wire == Wire::Native) };
    if order.wire == Wire::Classic {
        return Ok(false);
    }
    let mut path = Path::new();
    if !path.set(file, b"") {
        return Err(Errno::NAMETOOLONG);
    }
    // One byte more than a key has: one that has more is none.
    let mut bytes = [0; FILE_LEN + 1];
    let is_auto = order.wire == Wire::Auto;
    let read = match system.read_file(&path, &mut bytes) {
        Ok(read) => {
            let file = bytes.get(..read as usize).unwrap_or_default();
            match keys.read_file(file) {
                Some(()) => Ok(true),
                None if is_auto && !is_native_file(file) => Ok(false),
                None => Err(Errno::INVAL),
            }
        }
        // fence_virt has no use for a key on a serial port, and minds no missing one.
        Err(Errno::NOENT) if is_auto => Ok(false),
        Err(errno) => Err(errno),
    };
    bytes.as_mut_slice().zeroize();
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;
    use fencewire_core::Uuid;
    use fencewire_core::native::keys::write_file;

    fn keys(content: Option<&[u8]>, wire: Wire) -> Result<Option<u32>, Errno> {
        let mut system = StandIn::new();
        if let Some(content) = content {
            system = system.with_file("/key", Ok(content));
        }
        let order = Order { secret: Some(b"/key"), wire, ..Order::NEW };
        let mut keys = Keys::keyless();
        native_keys(&system, &order, &mut keys).map(|is_native| is_native.then(|| keys.generation()))
    }

    #[test]
    fn a_native_key_is_for_the_native_wire_and_a_broken_one_for_none() {
        let file = write_file(&Keys::derive(b"master", Uuid::from_bytes([7; 16]), 3));
        for wire in [Wire::Auto, Wire::Native] {
            assert_eq!(keys(Some(&file), wire), Ok(Some(3)));
            assert_eq!(keys(Some(&file[..99]), wire), Err(Errno::INVAL));
            assert_eq!(keys(Some(&[&file[..], b"x"].concat()), wire), Err(Errno::INVAL));
        }
        assert_eq!(keys(Some(&file), Wire::Classic), Ok(None));
        assert_eq!(keys(Some(b"any other"), Wire::Auto), Ok(None));
        assert_eq!(keys(Some(b"any other"), Wire::Native), Err(Errno::INVAL));
        assert_eq!(keys(None, Wire::Auto), Ok(None));
        assert!(keys(None, Wire::Native).is_err());
    }

    #[test]
    fn without_a_key_it_is_as_the_wire_says() {
        let of = |wire| native_keys(&StandIn::new(), &Order { wire, ..Order::NEW }, &mut Keys::keyless()).unwrap();
        assert_eq!([Wire::Auto, Wire::Native, Wire::Classic].map(of), [false, true, false]);
    }
}
