//! The log, on standard error, written by a thread of its own: whoever does not read it stops no fence.
//!
//! What waits is bounded. Lines that find no room are dropped and counted, and the count is logged as soon as a line can
//! be written again. Not here: what is logged.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tracing_subscriber::filter::LevelFilter;

/// Lines that may wait.
const WAITING: usize = 1_024;

/// How long the program's end waits for what is still to be written.
const END_TIME: Duration = Duration::from_secs(1);

/// Until room is looked for again at the end.
const AGAIN: Duration = Duration::from_millis(5);

/// Starts to log what is of that level or worse, panics of any thread, too.
pub fn start(level: LevelFilter) -> io::Result<Log> {
    let log = Log::to(io::stderr())?;
    let lines = log.lines.clone();
    tracing_subscriber::fmt().with_max_level(level).with_writer(move || lines.clone()).with_target(false).init();
    // The standard hook writes to standard error itself, and waits for it.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = thread.name(), %panic, %backtrace, "a thread panicked; this is a fault in fencewired");
    }));
    Ok(log)
}

/// The log. Dropping it waits a little for what is still to be written.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
}

/// Takes lines and never waits.
#[derive(Debug, Clone)]
struct Lines {
    sender: SyncSender<Note>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Note {
    Line(Vec<u8>),
    /// All that came before is to be written; then whoever waits is told.
    End(SyncSender<()>),
}

impl Log {
    fn to(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (sender, notes) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Lines { sender, lost: lost.clone() };
        thread::Builder::new().name("log".to_owned()).spawn(move || write(out, &notes, &lost))?;
        Ok(Log { lines })
    }
}

/// A line at a time.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Note::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let until = Instant::now() + END_TIME;
        let (done, is_done) = sync_channel(1);
        while self.lines.sender.try_send(Note::End(done.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            thread::sleep(AGAIN);
        }
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn write(mut out: impl Write, notes: &Receiver<Note>, lost: &AtomicU64) {
    while let Ok(note) = notes.recv() {
        // Nobody can be told that the log cannot be written.
        if let Note::Line(line) = &note {
            let _ = out.write_all(line);
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let now = humantime::format_rfc3339_micros(SystemTime::now());
            let why = "lines of the log were dropped: standard error did not take them in time";
            let _ = writeln!(out, "{now}  WARN {why} lost={lost}");
        }
        if let Note::End(done) = note {
            let _ = out.flush();
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Sender};

    /// Writes when it may, and says what.
    struct Gate {
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.open.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_does_not_read_is_not_waited_for_and_is_told_what_was_dropped() {
        let (opener, open) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let log = Log::to(Gate { open, written }).unwrap();
        let mut to = log.lines.clone();
        // One is being written, or waits like the rest.
        let sent = WAITING + 1 + 10;
        for number in 0..sent {
            to.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let lost = log.lines.lost.load(Ordering::Relaxed);
        assert!((10..=11).contains(&lost), "{lost}");
        let since = Instant::now();
        drop(log);
        assert!(since.elapsed() < END_TIME * 3, "{:?}", since.elapsed());
        drop(opener);
        drop(to);
        let text: String = lines.iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert!(text.starts_with("line 0\n") && text.contains("WARN lines of the log were dropped"), "{text}");
        assert!(text.contains(&format!("lost={lost}\n")));
        let whole = text.lines().filter(|line| line.starts_with("line ")).count();
        assert_eq!(whole + usize::try_from(lost).unwrap(), sent);
    }

    #[test]
    fn the_end_waits_for_what_is_written() {
        let (opener, open) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        drop(opener);
        let log = Log::to(Gate { open, written }).unwrap();
        for number in 0..100 {
            log.lines.clone().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop(log);
        assert_eq!(lines.try_iter().count(), 100);
    }
}
