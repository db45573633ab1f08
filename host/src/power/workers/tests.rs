use super::*;
use crate::power::Order;
use crate::power::hypervisor::{Guest, Sighting};
use crate::power::incarnation::Incarnation;
use crate::power::orders::guest;
use fencewire_core::Uuid;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Opens connections that are good for nothing, and counts them.
#[derive(Default)]
struct Counted {
    connections: AtomicUsize,
    refuses: AtomicBool,
    dead: Arc<AtomicBool>,
}

struct Nothing(Arc<AtomicBool>);

impl Source for Counted {
    fn connect(&self) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(HypervisorError::Unreachable("refused".to_owned()));
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Nothing(self.dead.clone())))
    }
}

impl Hypervisor for Nothing {
    fn incarnation(&self, _guest: Uuid) -> Result<Option<Incarnation>, HypervisorError> {
        unreachable!("jobs here ask nothing")
    }

    fn mark(&self, _guest: Uuid, _incarnation: Incarnation) -> Result<(), HypervisorError> {
        unreachable!("jobs here tell nothing")
    }

    fn is_alive(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        Ok(Vec::new())
    }

    fn state(&self, _: Uuid) -> Result<Guest, HypervisorError> {
        Err(HypervisorError::NoSuchGuest)
    }

    fn look(&self, _: Uuid) -> Result<Sighting, HypervisorError> {
        Err(HypervisorError::NoSuchGuest)
    }

    fn destroy(&self, _: &Order) -> Result<(), HypervisorError> {
        Ok(())
    }

    fn start(&self, _: &Order) -> Result<(), HypervisorError> {
        Ok(())
    }

    fn abort_job(&self, _: &Order) -> Result<(), HypervisorError> {
        Ok(())
    }

    fn remove_saved(&self, _: &Order) -> Result<(), HypervisorError> {
        Ok(())
    }
}

struct Bench {
    source: Arc<Counted>,
    pool: Pool,
    said: Sender<&'static str>,
    heard: Receiver<&'static str>,
}

impl Bench {
    fn new(wanted: usize) -> Bench {
        let source = Arc::new(Counted::default());
        let (said, heard) = mpsc::channel();
        Bench { pool: Pool::start("test", source.clone(), wanted).unwrap(), source, said, heard }
    }

    /// A job that says `word`, and whether it had a connection.
    fn say(&self, word: &'static str) {
        self.say_for(None, word);
    }

    fn say_for(&self, owner: Option<Uuid>, word: &'static str) {
        let said = self.said.clone();
        let say = Box::new(move |hypervisor: Result<&dyn Hypervisor, HypervisorError>| {
            let _ = said.send(if hypervisor.is_ok() { word } else { "no connection" });
        });
        self.pool.give(owner.map(Requester::Guest), say);
    }

    /// A job that says "hangs", and hangs until what this gives is dropped.
    fn hang(&self) -> Sender<()> {
        self.hang_for(None)
    }

    fn hang_for(&self, owner: Option<Uuid>) -> Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let said = self.said.clone();
        let hang = Box::new(move |_: Result<&dyn Hypervisor, HypervisorError>| {
            let _ = said.send("hangs");
            let _ = released.recv();
        });
        self.pool.give(owner.map(Requester::Guest), hang);
        release
    }

    #[track_caller]
    fn hears(&self, word: &str) {
        assert_eq!(self.heard.recv_timeout(SOON), Ok(word));
    }

    #[track_caller]
    fn hears_nothing(&self) {
        assert_eq!(self.heard.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    }

    /// What the pool does after a thread has been busy for long.
    fn relieve_much_later(&self) -> bool {
        self.pool.relieve(clock::now().plus(STUCK))
    }

    fn threads(&self) -> usize {
        self.pool.shared.lock().threads.len()
    }
}

#[test]
fn a_thread_opens_one_connection_and_opens_it_anew_when_it_is_dead() {
    let bench = Bench::new(1);
    for _ in 0..3 {
        bench.say("done");
        bench.hears("done");
    }
    assert_eq!(bench.source.connections.load(Ordering::SeqCst), 1);
    bench.source.dead.store(true, Ordering::SeqCst);
    bench.say("done");
    bench.hears("done");
    assert_eq!(bench.source.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_job_is_told_where_there_is_no_connection_and_the_next_one_tries_again() {
    let bench = Bench::new(1);
    bench.source.refuses.store(true, Ordering::SeqCst);
    bench.say("done");
    bench.hears("no connection");
    bench.source.refuses.store(false, Ordering::SeqCst);
    bench.say("done");
    bench.hears("done");
}

#[test]
fn a_stuck_thread_is_replaced_and_ends_when_it_comes_back() {
    let bench = Bench::new(1);
    let release = bench.hang();
    bench.hears("hangs");
    bench.say("after");
    assert!(bench.pool.relieve(clock::now()), "a job is out");
    bench.hears_nothing();
    assert!(bench.relieve_much_later());
    bench.hears("after");
    assert_eq!(bench.threads(), 2);
    drop(release);
    // It takes no other job, and its place is free again.
    let end = clock::now().plus(Millis(20_000));
    while bench.threads() > 1 {
        assert!(clock::now() < end);
        thread::yield_now();
    }
    bench.say("more");
    bench.hears("more");
}

#[test]
fn there_are_no_more_threads_than_stated_and_the_rest_waits() {
    let bench = Bench::new(4);
    let mut releases = Vec::new();
    for _ in 0..THREADS_MAX {
        releases.push(bench.hang());
    }
    for _ in 0..THREADS_MAX / 4 {
        for _ in 0..4 {
            bench.hears("hangs");
        }
        bench.relieve_much_later();
    }
    bench.say("after");
    assert!(bench.relieve_much_later());
    assert_eq!(bench.threads(), THREADS_MAX);
    bench.hears_nothing();
    // One that comes back makes room for another.
    releases.pop();
    let end = clock::now().plus(Millis(20_000));
    while bench.threads() == THREADS_MAX {
        assert!(clock::now() < end);
        thread::yield_now();
    }
    bench.relieve_much_later();
    bench.hears("after");
}

#[test]
fn jobs_of_one_guest_that_hang_take_no_more_than_its_share_of_threads() {
    let (a, b) = (Some(guest(0xa)), Some(guest(0xb)));
    let bench = Bench::new(2);
    let mut releases: Vec<_> = (0..RUNNING_PER_REQUESTER + 2).map(|_| bench.hang_for(a)).collect();
    for _ in 0..RUNNING_PER_REQUESTER / 2 {
        for _ in 0..2 {
            bench.hears("hangs");
        }
        bench.relieve_much_later();
    }
    bench.relieve_much_later();
    bench.hears_nothing();
    bench.say_for(b, "another's");
    bench.hears("another's");
    bench.say("nobody's");
    bench.hears("nobody's");
    // One that comes back makes room for its next, and not before.
    drop(releases.remove(0));
    bench.hears("hangs");
    bench.hears_nothing();
}

#[test]
fn a_job_that_panics_does_not_end_its_thread() {
    let bench = Bench::new(1);
    bench.pool.give(None, Box::new(|_| panic!("on purpose")));
    bench.say("after");
    bench.hears("after");
    assert_eq!(bench.threads(), 1);
}

#[test]
fn a_pool_that_is_dropped_begins_no_more_jobs() {
    let bench = Bench::new(1);
    let release = bench.hang();
    bench.hears("hangs");
    bench.say("never");
    let Bench { pool, heard, said, .. } = bench;
    drop((pool, said));
    drop(release);
    // The job is gone, and with it the last one who could say something.
    assert_eq!(heard.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
}
