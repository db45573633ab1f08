//! The time on this host: milliseconds since it started, the same for every run of the program.

use fencewire_core::Millis;

/// Now. Goes on across a restart of this program, so that what the journal says of times still holds.
pub fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Millis(time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000)
}
