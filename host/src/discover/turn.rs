//! The event loop that libvirt's events need, for the connections that are opened for events and for no others.
//!
//! libvirt gives every connection of a program to the loop that is registered, if it takes it. Its own loop takes all: then
//! each call of a worker's would wake it twice, and a fault in it could hold up a fence. This one refuses what is opened
//! outside [`for_events`], and libvirt lets such a connection do without, as it does where there is no loop at all.
//!
//! One thread polls. Any thread, and any callback, may add, change and remove; what was removed is given back by the
//! polling thread, between two rounds, so that no callback loses what it works on.

use crate::clock;
use fencewire_core::Millis;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use virt::sys;

thread_local! {
    /// This thread is opening a connection for events.
    static IS_FOR_EVENTS: Cell<bool> = const { Cell::new(false) };
}

static LOOP: OnceLock<Loop> = OnceLock::new();

struct Loop {
    inside: Mutex<Inside>,
    /// Wakes the thread that polls.
    wake: OwnedFd,
}

#[derive(Default)]
struct Inside {
    handles: Vec<Handle>,
    timers: Vec<Timer>,
    /// What libvirt wants back.
    gone: Vec<Given>,
    last: c_int,
}

/// What libvirt gave with a callback, and how it is given back.
#[derive(Clone, Copy)]
struct Given {
    opaque: *mut c_void,
    free: sys::virFreeCallback,
}

// SAFETY: libvirt's loops may be turned in any thread: what it gives them is for whichever that is.
unsafe impl Send for Given {}

#[derive(Clone, Copy)]
struct Handle {
    id: c_int,
    fd: c_int,
    events: c_int,
    callback: sys::virEventHandleCallback,
    given: Given,
}

#[derive(Clone, Copy)]
struct Timer {
    id: c_int,
    /// None: it is not running.
    every: Option<Millis>,
    due: Millis,
    callback: sys::virEventTimeoutCallback,
    given: Given,
}

/// Registers the loop with libvirt, once. Before any connection is opened.
pub(super) fn register() -> bool {
    if LOOP.get().is_some() {
        return true;
    }
    let Ok(wake) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) else { return false };
    if LOOP.set(Loop { inside: Mutex::default(), wake }).is_ok() {
        // SAFETY: the functions do what libvirt asks of them, and live as long as the program.
        unsafe {
            sys::virEventRegisterImpl(
                Some(add_handle),
                Some(update_handle),
                Some(remove_handle),
                Some(add_timer),
                Some(update_timer),
                Some(remove_timer),
            );
        }
    }
    true
}

/// Has the connections that `open` opens taken into the loop.
pub(super) fn for_events<T>(open: impl FnOnce() -> T) -> T {
    IS_FOR_EVENTS.set(true);
    let opened = open();
    IS_FOR_EVENTS.set(false);
    opened
}

/// Turns the loop until `is_over`, which is looked at after each [`wake`]. In one thread at a time.
pub(super) fn turn(is_over: &AtomicBool) {
    let Some(this) = LOOP.get() else { return };
    while !is_over.load(Ordering::Acquire) {
        this.give_back();
        this.wait_and_call();
    }
}

/// Wakes the loop.
pub(super) fn wake() {
    if let Some(this) = LOOP.get() {
        // Full: it is awake.
        let _ = rustix::io::write(&this.wake, &1_u64.to_ne_bytes());
    }
}

impl Loop {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self) {
        let gone = std::mem::take(&mut self.lock().gone);
        for Given { opaque, free } in gone {
            if let Some(free) = free {
                // SAFETY: it was removed, no callback runs, and it is given back once.
                unsafe { free(opaque) };
            }
        }
    }

    /// Waits for the next thing to happen, and calls whom it concerns.
    fn wait_and_call(&self) {
        let (handles, timeout) = self.lock().what_to_wait_for(clock::now());
        let mut polled = vec![PollFd::new(&self.wake, PollFlags::IN)];
        for handle in &handles {
            // SAFETY: libvirt keeps it open until it has removed it. Should that be just now, what is said of another
            // file of this number is not told to anybody: its handle is looked for again below.
            let fd = unsafe { BorrowedFd::borrow_raw(handle.fd) };
            polled.push(PollFd::from_borrowed_fd(fd, flags(handle.events)));
        }
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return;
        }
        let happened: Vec<c_int> = polled.iter().map(|polled| events(polled.revents())).collect();
        if happened[0] != 0 {
            let _ = rustix::io::read(self.wake.as_fd(), &mut [0; 8]);
        }
        for (handle, happened) in handles.iter().zip(&happened[1..]).filter(|(_, happened)| **happened != 0) {
            let still = self.lock().handles.iter().any(|it| it.id == handle.id);
            if let (true, Some(callback)) = (still, handle.callback) {
                // SAFETY: what was given is not given back before this thread does that.
                unsafe { callback(handle.id, handle.fd, *happened, handle.given.opaque) };
            }
        }
        let now = clock::now();
        let due: Vec<c_int> =
            self.lock().timers.iter().filter(|timer| timer.is_due(now)).map(|timer| timer.id).collect();
        for id in due {
            let timer = self.lock().timers.iter_mut().find(|timer| timer.id == id && timer.is_due(now)).map(|timer| {
                timer.due = now.plus(timer.every.unwrap_or(Millis(0)));
                *timer
            });
            if let Some(Timer { callback: Some(callback), given, .. }) = timer {
                // SAFETY: as above.
                unsafe { callback(id, given.opaque) };
            }
        }
    }
}

impl Inside {
    fn what_to_wait_for(&self, now: Millis) -> (Vec<Handle>, Option<Timespec>) {
        let handles = self.handles.iter().filter(|handle| handle.events != 0).copied().collect();
        let due = self.timers.iter().filter(|timer| timer.every.is_some()).map(|timer| timer.due).min();
        let timeout = due.map(|due| {
            let left = due.since(now).0.cast_signed();
            Timespec { tv_sec: left / 1_000, tv_nsec: left % 1_000 * 1_000_000 }
        });
        (handles, timeout)
    }

    fn next(&mut self) -> c_int {
        self.last += 1;
        self.last
    }
}

impl Timer {
    fn is_due(&self, now: Millis) -> bool {
        self.every.is_some() && self.due <= now
    }

    fn set(&mut self, every: c_int) {
        self.every = u64::try_from(every).ok().map(Millis);
        self.due = clock::now().plus(self.every.unwrap_or(Millis(0)));
    }
}

const KINDS: [(u32, PollFlags); 4] = [
    (sys::VIR_EVENT_HANDLE_READABLE, PollFlags::IN),
    (sys::VIR_EVENT_HANDLE_WRITABLE, PollFlags::OUT),
    (sys::VIR_EVENT_HANDLE_ERROR, PollFlags::ERR),
    (sys::VIR_EVENT_HANDLE_HANGUP, PollFlags::HUP),
];

fn flags(events: c_int) -> PollFlags {
    let wanted = KINDS.iter().filter(|(kind, _)| events.cast_unsigned() & kind != 0);
    wanted.fold(PollFlags::empty(), |flags, (_, flag)| flags | *flag)
}

fn events(flags: PollFlags) -> c_int {
    let happened = KINDS.iter().filter(|(_, flag)| flags.contains(*flag));
    let events = happened.fold(0, |events, (kind, _)| events | kind.cast_signed());
    // A file that is none any more: whoever has it sees to that.
    if flags.contains(PollFlags::NVAL) { events | sys::VIR_EVENT_HANDLE_ERROR.cast_signed() } else { events }
}

unsafe extern "C" fn add_handle(
    fd: c_int,
    events: c_int,
    callback: sys::virEventHandleCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let Some(this) = LOOP.get().filter(|_| IS_FOR_EVENTS.get()) else { return -1 };
    let mut inside = this.lock();
    let id = inside.next();
    inside.handles.push(Handle { id, fd, events, callback, given: Given { opaque, free } });
    drop(inside);
    wake();
    id
}

unsafe extern "C" fn update_handle(id: c_int, events: c_int) {
    let Some(this) = LOOP.get() else { return };
    if let Some(handle) = this.lock().handles.iter_mut().find(|handle| handle.id == id) {
        handle.events = events;
    }
    wake();
}

unsafe extern "C" fn remove_handle(id: c_int) -> c_int {
    let Some(this) = LOOP.get() else { return -1 };
    let mut inside = this.lock();
    let Some(at) = inside.handles.iter().position(|handle| handle.id == id) else { return -1 };
    let given = inside.handles.swap_remove(at).given;
    inside.gone.push(given);
    drop(inside);
    wake();
    0
}

unsafe extern "C" fn add_timer(
    every: c_int,
    callback: sys::virEventTimeoutCallback,
    opaque: *mut c_void,
    free: sys::virFreeCallback,
) -> c_int {
    let Some(this) = LOOP.get() else { return -1 };
    let mut inside = this.lock();
    let id = inside.next();
    let mut timer = Timer { id, every: None, due: Millis(0), callback, given: Given { opaque, free } };
    timer.set(every);
    inside.timers.push(timer);
    drop(inside);
    wake();
    id
}

unsafe extern "C" fn update_timer(id: c_int, every: c_int) {
    let Some(this) = LOOP.get() else { return };
    if let Some(timer) = this.lock().timers.iter_mut().find(|timer| timer.id == id) {
        timer.set(every);
    }
    wake();
}

unsafe extern "C" fn remove_timer(id: c_int) -> c_int {
    let Some(this) = LOOP.get() else { return -1 };
    let mut inside = this.lock();
    let Some(at) = inside.timers.iter().position(|timer| timer.id == id) else { return -1 };
    let given = inside.timers.swap_remove(at).given;
    inside.gone.push(given);
    drop(inside);
    wake();
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_words_for_events_are_polls() {
        for (kind, flag) in KINDS {
            assert_eq!((flags(kind.cast_signed()), events(flag)), (flag, kind.cast_signed()));
        }
        assert_eq!((flags(0), events(PollFlags::empty())), (PollFlags::empty(), 0));
        assert_eq!(events(PollFlags::NVAL).cast_unsigned(), sys::VIR_EVENT_HANDLE_ERROR, "its owner has to be told");
    }

    #[test]
    fn the_next_timer_that_runs_is_waited_for() {
        let given = Given { opaque: std::ptr::null_mut(), free: None };
        let timer = |id, every: Option<u64>, due| Timer {
            id,
            every: every.map(Millis),
            due: Millis(due),
            callback: None,
            given,
        };
        let timers = vec![timer(1, Some(5_000), 7_500), timer(2, None, 1_000), timer(3, Some(9_000), 9_000)];
        let inside = Inside { timers, ..Inside::default() };
        let waits = |now| inside.what_to_wait_for(Millis(now)).1.map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(waits(5_000), Some((2, 500_000_000)));
        assert_eq!(waits(8_000), Some((0, 0)), "it is due");
        assert_eq!(Inside::default().what_to_wait_for(Millis(0)).1, None);
        assert!(inside.timers[0].is_due(Millis(7_500)) && !inside.timers[1].is_due(Millis(7_500)));
    }
}
