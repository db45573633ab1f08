//! A daemon whose log nobody reads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{OFF, ON, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, wait_until};
use rustix::fs::{FileType, Mode, OFlags, mknodat};

/// A pipe that is full.
fn full_pipe(path: &std::path::Path) -> File {
    mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a named pipe");
    // Open for both, it has somebody at each end.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut pipe = File::from(rustix::fs::open(path, flags, Mode::empty()).expect("the pipe"));
    for size in [4_096, 1] {
        while pipe.write(&vec![b'#'; size]).is_ok() {}
    }
    pipe
}

#[test]
fn a_log_that_nobody_reads_delays_no_fence() {
    let folder = tempfile::tempdir().expect("a private folder");
    let path = folder.path().join("log");
    let mut pipe = full_pipe(&path);
    let setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).log_to(&path);
    let mut daemon = setup.environment("FENCEWIRED_LOG", "debug").start();
    let mut channel = daemon.channel("vm1");
    // More lines than may wait: a line for each status.
    let mut slowest = Duration::ZERO;
    for round in 0..1_500 {
        let since = Instant::now();
        let action = [STATUS, OFF, STATUS, ON][if round < 1_400 { 0 } else { round % 4 }];
        let answer = ask(&mut channel, action, "vm2");
        assert!(answer == SUCCESS || action == STATUS, "{answer}");
        slowest = slowest.max(since.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(daemon.status().1, "and it says that all is served");

    // Whoever reads again is told how much there is not to read.
    let mut text = String::new();
    wait_until(DEADLINE, "what was dropped to be told", || {
        let mut buffer = [0; 4_096];
        let read = pipe.read(&mut buffer).unwrap_or(0);
        text += &String::from_utf8_lossy(&buffer[..read]);
        text.contains("lines of the log were dropped").then_some(())
    });
    assert!(text.trim_start_matches('#').contains(" serving "), "from the beginning");
    drop(text);

    // Full again, it ends all the same.
    while pipe.write(&[b'#'; 4_096]).is_ok() {}
    let finished = daemon.stop();
    assert_eq!((finished.code, finished.signal), (Some(0), None), "{}", finished.stderr);
    assert_eq!(daemon.records().len(), 1_500 + 2, "and all is recorded");
}
