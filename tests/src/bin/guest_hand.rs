//! The test's hand in a guest, and the guest's first process: it carries out commands that come by a virtio port of the
//! test's own, each in a shell, several at a time. What its lines mean is in `src/guest/hand.rs`, at the other end.
//!
//! It is linked with nothing but the C library: what it needs has to be in the guest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::{Value, json};

const PORT: &str = "org.fencewire.test.0";

/// Between two looks at a port that is not there yet, or at whose other end nobody is.
const INTERVAL: Duration = Duration::from_millis(5);

fn main() -> ! {
    // Memory may be short in a test; whoever is killed for it then, it is not this process.
    let kept = fs::write("/proc/self/oom_score_adj", "-1000");
    let served = kept.and_then(|()| serve());
    // The end of the first process is the end of the guest: the console says why.
    panic!("the test's hand has no work any more: {served:?}");
}

fn serve() -> io::Result<()> {
    let path = loop {
        match find_port()? {
            Some(path) => break path,
            None => thread::sleep(INTERVAL),
        }
    };
    let mut port = OpenOptions::new().read(true).write(true).open(path)?;
    let answers: &'static Mutex<File> = Box::leak(Box::new(Mutex::new(port.try_clone()?)));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    answer(answers, &json!({ "ready": boot.trim() }));
    let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match port.read(&mut buffer)? {
            // Nobody is there.
            0 => thread::sleep(INTERVAL),
            read => lines.extend_from_slice(&buffer[..read]),
        }
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            // What is no order is the rest of one that was sent to the system before this one.
            if let Ok(order) = serde_json::from_slice::<Value>(&line) {
                thread::Builder::new().spawn(move || answer(answers, &carry_out(&order)))?;
            }
        }
    }
}

fn find_port() -> io::Result<Option<PathBuf>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
            let device = PathBuf::from("/dev").join(port.file_name());
            return Ok(device.exists().then_some(device));
        }
    }
    Ok(None)
}

/// In a line of its own, whatever was written before.
fn answer(answers: &Mutex<File>, line: &Value) {
    let line = format!("\n{line}\n");
    let mut port = answers.lock().expect("no panic while it was held");
    if let Err(why) = port.write_all(line.as_bytes()) {
        eprintln!("the test's hand cannot answer: {why}");
    }
}

fn carry_out(order: &Value) -> Value {
    let id = &order["id"];
    match run(order["run"].as_str().unwrap_or_default(), Duration::from_millis(order["ms"].as_u64().unwrap_or(0))) {
        Ok(Done { code, signal, stdout, stderr, took }) => json!({
            "id": id, "code": code, "signal": signal, "stdout": stdout, "stderr": stderr, "us": took.as_micros() as u64,
        }),
        Err(why) => json!({ "id": id, "failed": why.to_string() }),
    }
}

struct Done {
    code: Option<i32>,
    signal: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn run(script: &str, deadline: Duration) -> io::Result<Done> {
    let [mut stdout, mut stderr] = [capture()?, capture()?];
    let mut command = Command::new("/bin/sh");
    // What it starts is not kept from ending for want of memory, as this process is.
    let script = format!("echo 0 >/proc/$$/oom_score_adj\n{script}");
    command.arg("-c").arg(script).process_group(0).stdin(Stdio::null());
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let ended = ends_within(&child, deadline)?;
    let took = begun.elapsed();
    if !ended && let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        kill_process_group(group, Signal::KILL).ok();
    }
    let status = child.wait()?;
    if !ended {
        return Err(io::Error::other(format!(
            "it was still running after {deadline:?}; it had written\n{}\nand to standard error\n{}",
            written(&mut stdout)?,
            written(&mut stderr)?,
        )));
    }
    let (stdout, stderr) = (written(&mut stdout)?, written(&mut stderr)?);
    Ok(Done { code: status.code(), signal: status.signal(), stdout, stderr, took })
}

/// A file without a name: whoever keeps it open after the command's end holds nobody up.
fn capture() -> io::Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = format!("/run/hand.{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

fn written(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ends_within(child: &Child, deadline: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}
