//! Keeps what a test starts that does not stay its child, such as a libvirtd and the QEMUs that it starts.
//!
//! `keeper PROGRAM ARGUMENT...` starts the program, and once more for each line on its standard input, and says each
//! one's process id. Whatever is orphaned below it becomes its child: it is reaped at once, as an init would, and when
//! standard input ends, which it does with the test however that ends, all of it is killed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

/// How long a process that has ended stays unreaped at most. libvirt takes it for one that lives.
const INTERVAL: Duration = Duration::from_millis(2);

fn main() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let command: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [program, arguments @ ..] = command.as_slice() else {
        return Err(io::Error::other("usage: keeper PROGRAM ARGUMENT..."));
    };
    let start = || -> io::Result<()> {
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
        println!("{}", child.id());
        io::stdout().flush()
    };
    start()?;
    let orders = io::stdin();
    let mut buffer = [0; 64];
    loop {
        reap();
        let timeout = Timespec::try_from(INTERVAL).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&orders, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => match read(&orders, &mut buffer)? {
                0 => break,
                read => {
                    for _ in buffer[..read].iter().filter(|byte| **byte == b'\n') {
                        start()?;
                    }
                }
            },
            Err(why) => return Err(why.into()),
        }
    }
    // Nobody else reaps them, so no number is another's by now.
    while reap() {
        for child in children()? {
            // It may have ended meanwhile.
            kill_process(child, Signal::KILL).ok();
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Reaps those that have ended, and says whether there are others.
fn reap() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        // The parent is the second word behind the name, which may hold whatever it likes.
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = status.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if parent.and_then(Pid::from_raw) == Some(getpid()) {
            children.push(pid);
        }
    }
    Ok(children)
}
