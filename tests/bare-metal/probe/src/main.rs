//! Calls every public function of the core, with arguments of which the optimiser knows nothing but the type. Linked,
//! never run: that it links is the proof that none of them can panic (see `../check`).
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::fmt::Write as _;
use core::hint::black_box;
use core::panic::PanicInfo;

use embedded_io::{ErrorType, Read, Write};
use fencewire_core::classic::key::{Hash, Key, TAG_LEN};
use fencewire_core::classic::packet::{self, Fresh};
use fencewire_core::classic::serial::{self, ENTRY_LEN, Entry, REQUEST_LEN};
use fencewire_core::classic::{self, Code};
use fencewire_core::driver::{Driver, Port, Ready};
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX};
use fencewire_core::native::keys::{self, Keys};
use fencewire_core::native::message;
use fencewire_core::{
    Accept, Admit, Answer, Ask, Client, ConfirmedOff, Details, Endpoint as _, Entropy, Event, Failure, GuestName,
    Incarnation, Ledger, ListEntry, Listener, Millis, NativeAccept, NotAdmitted, Observation, Outcome, Permit, Power,
    PowerAction, Remembered, Request, RequestId, RequestKey, Restart, Signing, Speak, Target, Trust, Uuid,
};

/// If any call of it is left, linking fails, because what it calls is nowhere.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_path_survived(info: *const ()) -> !;
    }
    // The information is passed on only so that the places of the panics stay in the assembly, for `surviving-panics`.
    // SAFETY: never run.
    unsafe { a_panic_path_survived(core::ptr::from_ref(info).cast()) }
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    loop {
        words();
        classic();
        client();
        listener();
        driver();
        formatting();
        #[cfg(feature = "planted")]
        planted();
    }
}

/// Calls a function so that the optimiser can neither leave the call out nor fit it to its arguments. What is behind a
/// `&mut` may hold any value of its type afterwards.
macro_rules! call {
    ($function:path $(, $argument:expr)*) => { black_box($function($(black_box($argument)),*)) };
}

const TIME: Millis = Millis(1);

const ENTROPY: Entropy = Entropy([1; 64]);

fn bytes() -> &'static [u8] {
    black_box(b"any")
}

fn words() {
    call!(Millis::plus, TIME, TIME);
    call!(Millis::since, TIME, TIME);

    let uuid = call!(Uuid::from_bytes, [0; 16]);
    call!(Uuid::as_bytes, &uuid);
    call!(Uuid::parse, bytes());
    call!(Uuid::text, &uuid);

    if let Ok(name) = call!(GuestName::parse, bytes()) {
        call!(GuestName::as_str, &name);
        call!(GuestName::as_bytes, &name);
    }
    call!(PowerAction::as_str, PowerAction::Off);

    let ask = ask();
    call!(Ask::action, &ask);
    call!(Ask::target, &ask);
}

fn ask() -> Ask {
    match call!(Target::parse, bytes()) {
        Ok(target) => black_box(Ask::Power(PowerAction::Off, target)),
        Err(_) => black_box(Ask::List),
    }
}

fn native() {
    let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
    call!(frame::encode, bytes(), &mut out);
    let mut deframer = call!(Deframer::default);
    call!(Deframer::new);
    call!(Deframer::push, &mut deframer, 1);
    call!(Deframer::payload, &deframer);
    call!(Deframer::has_begun, &deframer);
    call!(Deframer::reset, &mut deframer);

    let key = call!(keys::Key::from_bytes, [0; 32]);
    call!(keys::Key::tag, &key, &[bytes()]);
    call!(keys::Key::proves, &key, &[bytes()], bytes());
    let keys = call!(Keys::derive, bytes(), Uuid::from_bytes([0; 16]), 1);
    call!(Keys::keyless);
    call!(Keys::guest, &keys);
    call!(Keys::generation, &keys);
    call!(Keys::hello_tag, &keys, bytes());
    call!(Keys::proves_hello, &keys, bytes(), bytes());
    call!(Keys::welcome_tag, &keys, bytes(), bytes());
    call!(Keys::proves_welcome, &keys, bytes(), bytes(), bytes());
    call!(Keys::session, &keys, bytes(), bytes());
    call!(keys::write_file, &keys);
    call!(keys::is_native_file, bytes());
    let _ = call!(keys::read_file, bytes());
    call!(Keys::read_file, &mut Keys::keyless(), bytes());

    call!(message::split_tag, bytes());
    call!(message::read::<message::Request<'_>>, message::REQUEST, bytes());
    call!(message::write, &message::Runs::On, &mut out);
    let _ = call!(message::Whom::target, message::Whom::Name("any"));
    call!(message::Runs::from, Power::On);
    call!(Power::from, message::Runs::On);
    let run = call!(Incarnation::from_bytes, [0; 16]);
    call!(Incarnation::as_bytes, &run);
}

fn packet() {
    let _ = call!(Hash::from_byte, 2);
    call!(Hash::as_byte, Hash::Sha512);
    let Ok(key) = call!(Key::absorb, bytes()) else { return };
    call!(Key::tag, &key, Hash::Sha512, &[bytes()]);
    call!(Key::proves, &key, Hash::Sha256, &[bytes()], &[0; TAG_LEN]);
    let fresh = Fresh { random: [0; 6], seqno: 0 };
    call!(packet::encode_request, &ask(), fresh, Hash::Sha256, &key);
    call!(packet::encode_unsigned, &ask(), fresh);
    let _ = call!(packet::decode_request, &[0; packet::REQUEST_LEN], Hash::Sha256, &key);
    let _ = call!(packet::decode_unsigned, &[0; packet::REQUEST_LEN]);
}

fn classic() {
    native();
    packet();
    call!(classic::action_byte, &ask());
    call!(Code::from_byte, 0);

    let _ = call!(serial::encode_request, &ask(), 0);
    let _ = call!(serial::decode_request, &[0; REQUEST_LEN]);
    call!(serial::encode_reply, Code::Success);
    call!(serial::has_magic, bytes());
    call!(serial::encode_entry, &list_entry());
    if let Some(entry) = call!(serial::decode_entry, &[0; ENTRY_LEN]) {
        call!(Entry::name, &entry);
    }
}

fn list_entry() -> ListEntry<'static> {
    black_box(ListEntry { name: "any", uuid: Uuid::from_bytes([0; 16]), power: Power::On })
}

fn client() {
    client_that(Speak::ClassicSerial { seqno: 0 });
    let Ok(key) = Key::absorb(bytes()) else { return };
    let fresh = Fresh { random: [0; 6], seqno: 0 };
    let signing = Signing::Key { key: &key, hash: Hash::Sha256, auth: Hash::Sha512 };
    client_that(Speak::ClassicPacket { fresh, signing });
    let keys = Keys::keyless();
    client_that(Speak::Native { keys: &keys, id: 1, guard: None });
}

fn client_that(speak: Speak<'_>) {
    let Ok(mut client) = call!(Client::new, speak, &ask(), TIME) else {
        return;
    };
    call!(Client::opened, &mut client, &ENTROPY, TIME);
    call!(Client::receive, &mut client, bytes(), TIME);
    call!(Client::transmit, &client);
    call!(Client::sent, &mut client, 0, TIME);
    call!(Client::wake_at, &client);
    call!(Client::wake, &mut client, TIME);
    call!(Client::poll, &mut client);
    call!(Client::is_over, &client);
    call!(Client::closed, &mut client, TIME);
}

fn listener() {
    listens(call!(Listener::new, call!(Accept::default)));
    let native = Some(NativeAccept { keys: Keys::keyless(), instance: 1 });
    listens(call!(Listener::new, Accept { native, ..Accept::default() }));
    listens(call!(Listener::of_packets, Trust::Anybody, TIME));
    let Ok(key) = Key::absorb(bytes()) else { return };
    let trust = Trust::Key { key, minimum: Hash::Sha256, auth: Hash::Sha512 };
    listens(call!(Listener::of_packets, trust, TIME));
}

fn listens(mut listener: Listener) {
    call!(Listener::opened, &mut listener, &ENTROPY, TIME);
    call!(Listener::receive, &mut listener, bytes(), TIME);
    call!(Listener::receive_old, &mut listener, bytes(), TIME);
    call!(Listener::transmit, &listener);
    call!(Listener::sent, &mut listener, 0, TIME);
    call!(Listener::wake_at, &listener);
    call!(Listener::wake, &mut listener, TIME);
    call!(Listener::guest_was_reset, &mut listener, TIME);
    call!(Listener::is_idle, &listener);
    call!(Listener::is_over, &listener);
    call!(Listener::is_proved, &listener);
    call!(Listener::closed, &mut listener, TIME);
    // Only a listener makes requests.
    if let Some(Event::Asked(id, request)) = call!(Listener::poll, &mut listener) {
        self::request(&request);
        ledger(&mut listener, id, &request);
    }
}

fn request(request: &Request) {
    call!(Request::ask, request);
    call!(Request::guard, request);
    call!(Request::is_native, request);
    call!(Request::key, request);
    call!(Request::received, request);
    call!(Request::deadline, request);
    call!(Request::remember_until, request);
}

fn ledger(listener: &mut Listener, id: RequestId, request: &Request) {
    call!(Ledger::<4>::default);
    let mut ledger = call!(Ledger::<4>::new);
    call!(Ledger::len, &ledger);
    call!(Ledger::is_empty, &ledger);
    let key = RequestKey { id: 0, body: [0; 16] };
    let remembered = Remembered::Done(PowerAction::Off, TIME, Restart::Started);
    call!(Ledger::restore, &mut ledger, key, TIME, remembered);

    let mut answer = Answer::Failed(call!(Failure::from, NotAdmitted::Full));
    if let Admit::Act(permit) = call!(Ledger::admit, &mut ledger, request, TIME) {
        call!(Permit::key, &permit);
        call!(Permit::received, &permit);
        call!(Permit::deadline, &permit);
        call!(Permit::resumed, &permit);
        let seen = Observation { power: Power::Off, asked: TIME };
        match call!(Permit::confirm_off, &permit, seen) {
            Some(off) => {
                call!(ConfirmedOff::seen, off);
                let outcome = black_box(Outcome::Off(off));
                call!(Ledger::settle, &mut ledger, permit, outcome);
                answer = Answer::Outcome(outcome);
            }
            None => call!(Ledger::withdraw, &mut ledger, permit),
        }
    }
    let _ = call!(Listener::answer, listener, id, answer, TIME);
    let _ = call!(Listener::answer_with, listener, id, answer, Details::NONE, TIME);
    let _ = call!(Listener::answer, listener, id, Answer::Entry(list_entry()), TIME);
}

/// A port that may do anything at any time.
struct AnyPort;

impl ErrorType for AnyPort {
    type Error = Infallible;
}

impl Read for AnyPort {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        black_box(into);
        Ok(black_box(0))
    }
}

impl Write for AnyPort {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        black_box(bytes);
        Ok(black_box(0))
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Port for AnyPort {
    fn now(&mut self) -> Millis {
        black_box(TIME)
    }

    fn wait(&mut self, write: bool, until: Option<Millis>) -> Result<Ready, Infallible> {
        black_box((write, until));
        Ok(black_box(Ready { read: true, write: true }))
    }
}

fn driver() {
    let mut port = AnyPort;

    let mut listener = Listener::new(Accept::default());
    let mut driver = call!(Driver::open, &mut listener, &mut port, &ENTROPY);
    let _ = call!(Driver::event, &mut driver);
    call!(Driver::end, &mut driver);

    if let Ok(mut client) = Client::new(Speak::ClassicSerial { seqno: 0 }, &ask(), TIME) {
        let mut driver = call!(Driver::open, &mut client, &mut port, &ENTROPY);
        let _ = call!(Driver::reply, &mut driver);
    }
}

struct Log;

impl core::fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        black_box(text);
        black_box(Ok(()))
    }
}

/// What firmware may want to log.
fn formatting() {
    let _ = write!(Log, "{}", black_box(Uuid::from_bytes([0; 16])));
    if let Some(target) = ask().target() {
        let _ = write!(Log, "{target}");
    }
}

#[cfg(feature = "planted")]
fn planted() {
    black_box(bytes()[black_box(0)]);
}
