//! Each entry point of the core as a function of its own, so that its need of stack can be told (see `../../stack`). Linked,
//! never run.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Admit, Answer, Ask, Client, Details, Endpoint as _, Entropy, Event, Ledger, Listener, Millis, NotNow,
    Outcome, Permit, Reply, Request, RequestId, Speak, Trust, Unspeakable, Uuid,
};

/// That there is no way here is what `../../check` proves.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Functions that the linker keeps and that nothing is inlined into but what they call.
macro_rules! entry_points {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty { $call:expr })*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            fn $name($($argument: $type),*) -> $result {
                $call
            }
        )*

        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            $(black_box($name as fn($($type),*) -> $result);)*
            loop {}
        }
    };
}

entry_points! {
    client_new(speak: Speak<'_>, ask: &Ask, until: Millis) -> Result<Client, Unspeakable> { Client::new(speak, ask, until) }
    client_opened(end: &mut Client, entropy: &Entropy, now: Millis) -> () { end.opened(entropy, now) }
    client_receive(end: &mut Client, bytes: &[u8], now: Millis) -> usize { end.receive(bytes, now) }
    client_poll(end: &mut Client) -> Option<Reply> { end.poll() }
    client_transmit(end: &Client) -> &[u8] { end.transmit() }
    client_sent(end: &mut Client, n: usize, now: Millis) -> () { end.sent(n, now) }
    client_wake_at(end: &Client) -> Option<Millis> { end.wake_at() }
    client_wake(end: &mut Client, now: Millis) -> () { end.wake(now) }
    client_closed(end: &mut Client, now: Millis) -> () { end.closed(now) }

    listener_new(accept: Accept) -> Listener { Listener::new(accept) }
    listener_of_packets(trust: Trust, time_to_act: Millis) -> Listener { Listener::of_packets(trust, time_to_act) }
    listener_opened(end: &mut Listener, entropy: &Entropy, now: Millis) -> () { end.opened(entropy, now) }
    listener_receive(end: &mut Listener, bytes: &[u8], now: Millis) -> usize { end.receive(bytes, now) }
    listener_poll(end: &mut Listener) -> Option<Event> { end.poll() }
    listener_answer(end: &mut Listener, id: RequestId, answer: Answer<'_>, now: Millis) -> Result<(), NotNow> {
        end.answer_with(id, answer, Details::NONE, now)
    }
    listener_transmit(end: &Listener) -> &[u8] { end.transmit() }
    listener_sent(end: &mut Listener, n: usize, now: Millis) -> () { end.sent(n, now) }
    listener_wake_at(end: &Listener) -> Option<Millis> { end.wake_at() }
    listener_wake(end: &mut Listener, now: Millis) -> () { end.wake(now) }
    listener_closed(end: &mut Listener, now: Millis) -> () { end.closed(now) }

    ledger_admit(ledger: &mut Ledger<16>, request: &Request, now: Millis) -> Admit { ledger.admit(request, now) }
    ledger_settle(ledger: &mut Ledger<16>, permit: Permit, outcome: Outcome) -> () { ledger.settle(permit, outcome) }

    keys_derive(master: &[u8], guest: Uuid) -> Keys { Keys::derive(master, guest, 1) }
}
