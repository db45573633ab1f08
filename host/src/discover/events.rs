//! libvirt's events: what happens to its guests, told as it happens.
//!
//! Two kinds of thread. One for the process, "libvirt-events", turns the event loop (`turn`) and never blocks
//! elsewhere. And one for each hypervisor, "events", has a connection for nothing but this: it opens it, which may take
//! for ever, and opens it again when it has broken. No call of a worker's ever waits for either.
//!
//! The crate `virt` has no registration of domain events: this is made of the plain bindings. Not here: what is done
//! about an event, which is to look.

use super::turn;
use crate::power::hypervisor::{Happening, Tell, Watch};
use fencewire_core::Uuid;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;
use virt::sys;

/// Between two tries to open a connection: at first, and at most.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How often a libvirtd is asked whether it is there, in seconds, and how often in vain: a host that has gone does not
/// say so.
const KEEPALIVE_S: c_int = 5;
const KEEPALIVE_TIMES: u32 = 3;

/// How long the end of a thread is waited for. One whose libvirtd hangs ends with the program.
const END_TIME: Duration = Duration::from_secs(1);

/// An open connection, which is closed when it is dropped.
pub trait Connection {
    /// libvirt's own handle, good for as long as this is borrowed.
    fn handle(&self) -> sys::virConnectPtr;
}

/// Opens a connection, or says why that cannot be done. Blocks.
pub type Open = Box<dyn Fn() -> Result<Arc<dyn Connection>, String> + Send>;

/// Tells of what happens on a hypervisor until what is returned is dropped. None: libvirt has no event loop, or there are no
/// threads. To be called before any connection is opened.
pub fn watch(open: Open, tell: Tell) -> Option<Watch> {
    let turning = Turning::begin()?;
    let (orders, inbox) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel();
    let watcher = Watcher { open, tell, orders: orders.clone(), inbox };
    let thread = thread::Builder::new().name("events".to_owned()).spawn(move || {
        watcher.run();
        drop(ended);
    });
    match thread {
        Ok(_) => Some(Box::new(Watching { orders, has_ended, _turning: turning })),
        Err(why) => {
            tracing::error!(%why, "no thread could be started: nothing is told by events");
            None
        }
    }
}

/// What a watcher is told.
enum Order {
    /// Its connection has broken.
    Broken,
    /// Nobody wants to know any more.
    End,
}

/// Ends a watcher when it is dropped.
struct Watching {
    orders: Sender<Order>,
    has_ended: Receiver<()>,
    /// The loop is turned for longer than that.
    _turning: Turning,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        let _ = self.has_ended.recv_timeout(END_TIME);
    }
}

struct Watcher {
    open: Open,
    tell: Tell,
    orders: Sender<Order>,
    inbox: Receiver<Order>,
}

impl Watcher {
    fn run(&self) {
        let mut retry = RETRY;
        loop {
            // The bindings panic where libvirt fails to close.
            let told = panic::catch_unwind(AssertUnwindSafe(|| self.tell_while_open()));
            match told {
                Ok(Some(Order::End)) => return,
                Ok(Some(Order::Broken)) => retry = RETRY,
                Ok(None) | Err(_) => {}
            }
            match self.inbox.recv_timeout(retry) {
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Broken) | Err(RecvTimeoutError::Timeout) => {}
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// Opens a connection and waits for its end. None: it could not be opened.
    fn tell_while_open(&self) -> Option<Order> {
        let connection = match turn::for_events(&self.open) {
            Ok(connection) => connection,
            Err(why) => {
                // Whoever asks it something says so, too, and louder.
                tracing::debug!(why, "no connection for events");
                return None;
            }
        };
        // What broke before was another one.
        while let Ok(order) = self.inbox.try_recv() {
            if let Order::End = order {
                return Some(Order::End);
            }
        }
        let _registered = Registered::on(&connection, &self.tell, &self.orders)?;
        (self.tell)(Happening::Returned);
        self.inbox.recv().ok()
    }
}

/// The callbacks on a connection. Gone when this is dropped.
struct Registered<'a> {
    connection: &'a Arc<dyn Connection>,
    callbacks: Vec<c_int>,
}

impl<'a> Registered<'a> {
    fn on(connection: &'a Arc<dyn Connection>, tell: &Tell, orders: &Sender<Order>) -> Option<Registered<'a>> {
        let handle = connection.handle();
        let mut registered = Registered { connection, callbacks: Vec::new() };
        // SAFETY: libvirt calls each callback with the arguments of the type that belongs to the event's number; it hands
        // over the function through one type for all, as C does.
        let events: [(u32, unsafe extern "C" fn()); 3] = unsafe {
            [
                (
                    sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                    std::mem::transmute::<Lifecycle, unsafe extern "C" fn()>(lifecycle),
                ),
                (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, std::mem::transmute::<Device, unsafe extern "C" fn()>(device)),
                (
                    sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                    std::mem::transmute::<Device, unsafe extern "C" fn()>(device),
                ),
            ]
        };
        for (event, callback) in events {
            let opaque = Box::into_raw(Box::new(tell.clone()));
            // SAFETY: the connection is open; `opaque` is a `Tell` of its own, which `free` drops once, when libvirt is
            // done with it.
            let id = unsafe {
                let callback = std::mem::transmute::<unsafe extern "C" fn(), Generic>(callback);
                let event = event.cast_signed();
                sys::virConnectDomainEventRegisterAny(
                    handle,
                    ptr::null_mut(),
                    event,
                    Some(callback),
                    opaque.cast(),
                    Some(free::<Tell>),
                )
            };
            if id < 0 {
                // SAFETY: libvirt has not taken it.
                drop(unsafe { Box::from_raw(opaque) });
                // A driver may have no such event; without the first one there is nothing to wait for.
                if event == sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE {
                    tracing::debug!("no events of guests' lives on this connection");
                    return None;
                }
            } else {
                registered.callbacks.push(id);
            }
        }
        let opaque = Box::into_raw(Box::new(orders.clone()));
        // SAFETY: as above.
        let is_told = unsafe {
            sys::virConnectRegisterCloseCallback(handle, Some(closed), opaque.cast(), Some(free::<Sender<Order>>))
        };
        if is_told < 0 {
            // SAFETY: libvirt has not taken it. A driver that lives in this process has no end to tell of.
            drop(unsafe { Box::from_raw(opaque) });
        }
        // SAFETY: the connection is open. A driver that knows no such thing says so, and needs none.
        unsafe { sys::virConnectSetKeepAlive(handle, KEEPALIVE_S, KEEPALIVE_TIMES) };
        Some(registered)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let handle = self.connection.handle();
        for id in &self.callbacks {
            // SAFETY: the connection has not been closed by us, though it may be broken, and the number is one it gave.
            unsafe { sys::virConnectDomainEventDeregisterAny(handle, *id) };
        }
        // SAFETY: likewise. Where none is registered libvirt says so, and nothing else.
        unsafe { sys::virConnectUnregisterCloseCallback(handle, Some(closed)) };
    }
}

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Lifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Device = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let what: fn(Uuid) -> Happening = match (event.cast_unsigned(), detail.cast_unsigned()) {
        (sys::VIR_DOMAIN_EVENT_DEFINED | sys::VIR_DOMAIN_EVENT_UNDEFINED, _) => Happening::Defined,
        // libvirt says this when it begins to come, and not when it is there.
        (sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED) => Happening::Arrives,
        (sys::VIR_DOMAIN_EVENT_STARTED, _) => Happening::Started,
        (sys::VIR_DOMAIN_EVENT_RESUMED, _) => Happening::Resumed,
        (
            sys::VIR_DOMAIN_EVENT_SUSPENDED,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED
            | sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY
            | sys::VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED,
        )
        | (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => Happening::Leaves,
        (sys::VIR_DOMAIN_EVENT_STOPPED | sys::VIR_DOMAIN_EVENT_CRASHED, _) => Happening::Changed,
        // Paused, about to shut down: nothing that anybody waits for.
        _ => return 0,
    };
    // SAFETY: libvirt gives the domain and what was registered, both good for this call.
    unsafe { say(domain, opaque, what) };
    0
}

unsafe extern "C" fn device(_: sys::virConnectPtr, domain: sys::virDomainPtr, _: *const c_char, opaque: *mut c_void) {
    // SAFETY: as above.
    unsafe { say(domain, opaque, Happening::Changed) };
}

unsafe fn say(domain: sys::virDomainPtr, opaque: *mut c_void, what: impl FnOnce(Uuid) -> Happening) {
    let mut uuid = [0; 16];
    // SAFETY: libvirt writes 16 bytes.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0 {
        // SAFETY: what was registered with this callback is a `Tell`, and lives until `free`.
        let tell = unsafe { &*opaque.cast::<Tell>() };
        tell(what(Uuid::from_bytes(uuid)));
    }
}

unsafe extern "C" fn closed(_: sys::virConnectPtr, _: c_int, opaque: *mut c_void) {
    // SAFETY: what was registered with this callback is a sender, and lives until `free`.
    let orders = unsafe { &*opaque.cast::<Sender<Order>>() };
    let _ = orders.send(Order::Broken);
}

unsafe extern "C" fn free<T>(opaque: *mut c_void) {
    // SAFETY: it came out of such a box, and libvirt gives it back once.
    drop(unsafe { Box::from_raw(opaque.cast::<T>()) });
}

/// The loop is turned as long as there is one of these.
struct Turning;

/// How many there are, and the thread.
static TURNING: Mutex<Option<Turner>> = Mutex::new(None);

struct Turner {
    users: usize,
    is_over: Arc<AtomicBool>,
    has_ended: Receiver<()>,
}

impl Turning {
    fn begin() -> Option<Turning> {
        if !is_registered() {
            tracing::error!("libvirt has no event loop: what happens is seen when the guests are looked at again");
            return None;
        }
        let mut turner = TURNING.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *turner {
            Some(turner) => turner.users += 1,
            None => *turner = Some(Turner::start()?),
        }
        Some(Turning)
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        let mut turner = TURNING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &mut *turner else { return };
        running.users -= 1;
        if running.users == 0 {
            running.stop();
            *turner = None;
        }
    }
}

impl Turner {
    fn start() -> Option<Turner> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (ended, has_ended) = mpsc::channel();
        let until = is_over.clone();
        let thread = thread::Builder::new().name("libvirt-events".to_owned()).spawn(move || {
            turn::turn(&until);
            drop(ended);
        });
        thread.ok().map(|_| Turner { users: 1, is_over, has_ended })
    }

    /// The program is about to end: libvirt does not bear that this thread runs meanwhile.
    fn stop(&self) {
        self.is_over.store(true, Ordering::Release);
        turn::wake();
        let _ = self.has_ended.recv_timeout(END_TIME);
    }
}

/// Registers the event loop, once.
fn is_registered() -> bool {
    static ONCE: Once = Once::new();
    static DONE: AtomicBool = AtomicBool::new(false);
    ONCE.call_once(|| {
        // SAFETY: it may be called at any time, and as often as one likes.
        let is_ready = unsafe { sys::virInitialize() == 0 };
        DONE.store(is_ready && turn::register(), Ordering::Release);
    });
    DONE.load(Ordering::Acquire)
}
