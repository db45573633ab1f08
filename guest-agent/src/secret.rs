//! Which wire is spoken on a channel, and with what key.
//!
//! Whoever has a native key speaks nothing but the native wire with it: a file that is meant to be one, and is none, is an
//! error and no reason for another wire. Not here: the key for TCP (see `tcp`).

use crate::order::Order;
use crate::system::{Errno, System};
use fencewire_core::{Entropy, Speak};

#[cfg(feature = "native")]
use crate::{order::Wire, system::Path};
#[cfg(feature = "native")]
pub(crate) use fencewire_core::native::keys::Keys;
#[cfg(feature = "native")]
use fencewire_core::native::keys::{FILE_LEN, is_native_file, read_file};
#[cfg(feature = "native")]
use zeroize::Zeroize;

/// A program without the native wire has no keys for it.
#[cfg(not(feature = "native"))]
#[derive(Debug)]
pub(crate) enum Keys {}

/// How the native wire is spoken; none where the kernel has no random bytes.
#[cfg(feature = "native")]
pub(crate) fn speak_native<'k, S: System>(system: &S, keys: &'k Keys, entropy: &mut Entropy) -> Option<Speak<'k>> {
    let mut id = [0; 8];
    let is_random = system.entropy(&mut entropy.0) && system.entropy(&mut id);
    is_random.then_some(Speak::Native { keys, id: u64::from_le_bytes(id), guard: None })
}

#[cfg(not(feature = "native"))]
pub(crate) fn speak_native<'k, S: System>(_: &S, keys: &'k Keys, _: &mut Entropy) -> Option<Speak<'k>> {
    match *keys {}
}

/// The keys of the native wire; none where the classic one is to be spoken.
#[cfg(feature = "native")]
#[inline(never)]
pub(crate) fn native_keys<S: System>(system: &S, order: &Order<'_>) -> Result<Option<Keys>, Errno> {
    match (order.wire, order.secret) {
        (Wire::Classic, _) | (Wire::Auto, None) => Ok(None),
        (Wire::Native, None) => Ok(Some(Keys::keyless())),
        (wire, Some(file)) => {
            let mut path = Path::new();
            if !path.set(file, b"") {
                return Err(Errno::NAMETOOLONG);
            }
            // One byte more than a key has: one that has more is none.
            let mut bytes = [0; FILE_LEN + 1];
            let read = system.read_file(&path, &mut bytes);
            let keys = read.and_then(|read| parse(bytes.get(..read as usize).unwrap_or_default(), wire));
            bytes.zeroize();
            match keys {
                // fence_virt has no use for a key on a serial port, and minds no missing one.
                Err(Errno::NOENT) if wire == Wire::Auto => Ok(None),
                keys => keys,
            }
        }
    }
}

#[cfg(not(feature = "native"))]
#[expect(clippy::unnecessary_wraps, reason = "the other one may fail")]
pub(crate) const fn native_keys<S>(_: &S, _: &Order<'_>) -> Result<Option<Keys>, Errno> {
    Ok(None)
}

#[cfg(feature = "native")]
fn parse(file: &[u8], wire: Wire) -> Result<Option<Keys>, Errno> {
    match read_file(file) {
        Some(keys) => Ok(Some(keys)),
        None if wire == Wire::Auto && !is_native_file(file) => Ok(None),
        None => Err(Errno::INVAL),
    }
}

#[cfg(all(test, feature = "native"))]
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
        native_keys(&system, &order).map(|keys| keys.map(|keys| keys.generation()))
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
        let of = |wire| native_keys(&StandIn::new(), &Order { wire, ..Order::NEW }).unwrap().is_some();
        assert_eq!([Wire::Auto, Wire::Native, Wire::Classic].map(of), [false, true, false]);
    }
}
