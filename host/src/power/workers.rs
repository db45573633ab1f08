//! The threads in which hypervisor calls block. A thread that is stuck in one is set aside, and another takes its place,
//! up to a stated number: a hypervisor that hangs for one guest must not hang for another.

use super::hypervisor::{Hypervisor, HypervisorError, Source};
use super::lane::RUNNING_PER_REQUESTER;
use crate::clock;
use crate::control::snapshot::Workers;
use crate::guests::Requester;
use fencewire_core::Millis;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A thread that has been in one job for so long is set aside.
const STUCK: Millis = Millis(1_000);

/// How long the end of idle threads is waited for: they have a connection to close, and nothing else to do.
const END_TIME: Millis = Millis(1_000);

/// Threads at most in a pool, those that are set aside included.
pub const THREADS_MAX: usize = 32;

/// What a worker does, and where it says what came of it.
pub type Job = Box<dyn FnOnce(Result<&dyn Hypervisor, HypervisorError>) + Send>;

/// Threads with a connection each to one hypervisor.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    source: Arc<dyn Source>,
    state: Mutex<State>,
    work: Condvar,
    /// A thread has ended, and its connection is closed.
    ended: Condvar,
}

struct State {
    /// For whom each is done.
    jobs: VecDeque<(Option<Requester>, Job)>,
    /// One for each thread.
    threads: Vec<Thread>,
    /// Threads that are not set aside, as many as asked for.
    wanted: usize,
    next: u64,
    closed: bool,
}

struct Thread {
    id: u64,
    busy_since: Option<Millis>,
    /// For whom it was busy last.
    owner: Option<Requester>,
    aside: bool,
}

impl Pool {
    /// Starts `wanted` threads named `name`. They connect at their first job.
    pub fn start(name: &'static str, source: Arc<dyn Source>, wanted: usize) -> std::io::Result<Pool> {
        let state = State { jobs: VecDeque::new(), threads: Vec::new(), wanted, next: 0, closed: false };
        let shared =
            Arc::new(Shared { name, source, state: Mutex::new(state), work: Condvar::new(), ended: Condvar::new() });
        let pool = Pool { shared };
        let mut state = pool.shared.lock();
        for _ in 0..wanted {
            pool.spawn(&mut state)?;
        }
        drop(state);
        Ok(pool)
    }

    /// Gives a job to the next free thread. Of the jobs for one guest, as many are done at a time as may run for one: if
    /// they hang, they do not take every thread there is.
    pub fn give(&self, owner: Option<Requester>, job: Job) {
        self.shared.lock().jobs.push_back((owner, job));
        self.shared.work.notify_one();
    }

    /// Sets stuck threads aside and replaces them. To be called every so often while jobs are out; says whether any
    /// are.
    pub fn relieve(&self, now: Millis) -> bool {
        let mut state = self.shared.lock();
        for thread in &mut state.threads {
            let stuck = thread.busy_since.is_some_and(|since| now.since(since) >= STUCK);
            if stuck && !thread.aside {
                thread.aside = true;
                tracing::warn!(pool = self.shared.name, thread = thread.id, "the hypervisor hangs: thread set aside");
            }
        }
        let able = state.threads.iter().filter(|thread| !thread.aside).count();
        for _ in able..state.wanted {
            if state.threads.len() >= THREADS_MAX {
                tracing::error!(
                    pool = self.shared.name,
                    "every thread is stuck in a hypervisor call that does not end"
                );
                break;
            }
            if let Err(why) = self.spawn(&mut state) {
                tracing::error!(pool = self.shared.name, %why, "no thread could be started");
                break;
            }
        }
        state.threads.iter().any(|thread| thread.busy_since.is_some()) || !state.jobs.is_empty()
    }

    /// How its threads are.
    pub fn workers(&self) -> Workers {
        let state = self.shared.lock();
        let count = |is: fn(&&Thread) -> bool| state.threads.iter().filter(is).count();
        Workers {
            threads: state.threads.len(),
            busy: count(|thread| thread.busy_since.is_some()),
            set_aside: count(|thread| thread.aside),
            waiting: state.jobs.len(),
        }
    }

    fn spawn(&self, state: &mut State) -> std::io::Result<()> {
        let id = state.next;
        let shared = self.shared.clone();
        let builder = thread::Builder::new().name(format!("{}-{id}", shared.name));
        builder.spawn(move || shared.work(id))?;
        state.next += 1;
        state.threads.push(Thread { id, busy_since: None, owner: None, aside: false });
        Ok(())
    }
}

impl Drop for Pool {
    /// Lets idle threads end, and waits for that: libvirt does not bear that its connections are closed while the program
    /// ends around them. A thread that is busy is not waited for; it ends with the program.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.work.notify_all();
        let until = clock::now().plus(END_TIME);
        while state.threads.iter().any(|thread| thread.busy_since.is_none()) && clock::now() < until {
            let left = Duration::from_millis(until.since(clock::now()).0);
            let waited = self.shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl State {
    fn may_run_more(&self, owner: Option<Requester>) -> bool {
        let its = |thread: &&Thread| thread.owner == owner && thread.busy_since.is_some();
        owner.is_none() || self.threads.iter().filter(its).count() < RUNNING_PER_REQUESTER
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, id: u64) {
        self.serve(id);
        self.lock().threads.retain(|thread| thread.id != id);
        self.ended.notify_all();
        // There may be a job that waited for this one, and a thread that waits for a job.
        self.work.notify_one();
    }

    /// Does jobs until the thread is to end. The connection is closed then.
    fn serve(&self, id: u64) {
        let mut connection: Option<Arc<dyn Hypervisor>> = None;
        while let Some(job) = self.next(id) {
            // A panic in one job must not end the thread: its place would stay taken.
            let done = panic::catch_unwind(AssertUnwindSafe(|| {
                if connection.as_ref().is_some_and(|open| !open.is_alive()) {
                    connection = None;
                }
                if connection.is_none() {
                    match self.source.connect() {
                        Ok(open) => connection = Some(open),
                        Err(why) => return job(Err(why)),
                    }
                }
                if let Some(open) = &connection {
                    job(Ok(open.as_ref()));
                }
            }));
            if done.is_err() {
                tracing::error!(pool = self.name, "a job panicked; this is a fault in fencewired");
            }
        }
    }

    /// The next job; none when the thread is to end.
    fn next(&self, id: u64) -> Option<Job> {
        let mut state = self.lock();
        let this = state.threads.iter().position(|thread| thread.id == id)?;
        state.threads[this].busy_since = None;
        if state.threads[this].aside {
            return None;
        }
        loop {
            if state.closed {
                return None;
            }
            let next = state.jobs.iter().position(|(owner, _)| state.may_run_more(*owner));
            if let Some((owner, job)) = next.and_then(|next| state.jobs.remove(next)) {
                let this = state.threads.iter_mut().find(|thread| thread.id == id)?;
                (this.busy_since, this.owner) = (Some(clock::now()), owner);
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests;
