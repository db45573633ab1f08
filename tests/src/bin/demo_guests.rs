//! The main job with nothing made up, for a person to watch: two guests with a Linux system, each in a QEMU of its own
//! under a libvirtd, and one of them fences the other through its virtio port, which the daemon finds by itself. Real
//! daemon, real agent, real processes that end.
//!
//! Ends with 0 only if everything went as it should.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest::{Guest, PORT};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::real_libvirt::Host;
use fencewire_tests::story::{in_a_line, indented};

const ASKER: &str = "nfs-server2";
const TARGET: &str = "nfs-server1";

fn main() -> ExitCode {
    println!("A host starts two guests, {TARGET} and {ASKER}, emulated: this takes a few seconds.\n");
    let begun = Instant::now();
    let host = Host::start();
    let [asker, target] = Guest::boot(&host, [ASKER, TARGET]);
    println!("  both are up after {:.1} s; {} in {ASKER}", begun.elapsed().as_secs_f64(), asker.done("uname -sr"));
    println!("  {ASKER} has a virtio port called {PORT}, and no network\n");

    let mut daemon = Daemon::setup()
        .uri(&host.uri())
        .discover("owners = [\"nobody\"]")
        .group("nfs", &[ASKER, TARGET], "")
        .wire("keyless = true")
        .start();
    daemon.wait_connected(&asker.virtio(), 1);
    println!("The host runs fencewired with this configuration:\n");
    println!("{}", indented(&fs::read_to_string(daemon.config()).unwrap_or_default()));

    println!("In {ASKER}:\n");
    let mut story = Story { host: &host, asker: &asker, as_it_should: true };
    story.asks("Whom may I fence?", "-o list", 0);
    story.asks("Does my sibling run?", &format!("-o status -n {TARGET}"), 0);

    let first = target.qemu(&host);
    println!("  # On the host it is process {}. Say that it hangs: reboot it.", first.id());
    story.asks("", &format!("-o reboot -n {TARGET}"), 0);
    story.says(!first.lives(), &format!("process {} is gone", first.id()));
    let again = Guest::of(&host, TARGET);
    let second = again.qemu(&host);
    let uptime = again.done("cut -d ' ' -f 1 /proc/uptime");
    story.says(second.lives(), &format!("{TARGET} is process {} and up for {uptime} s\n", second.id()));

    story.asks("It must not come back: switch it off.", &format!("-o off -n {TARGET}"), 0);
    story.says(!second.lives() && host.try_qemu(TARGET).is_none(), &format!("process {} is gone", second.id()));
    story.says(true, &format!("libvirt says of {TARGET}: {}\n", host.state(TARGET)));
    story.asks("Does it run? (2 means: no)", &format!("-o status -n {TARGET}"), 2);
    story.asks("May I fence myself?", &format!("-o off -n {ASKER}"), 1);
    let mut as_it_should = story.as_it_should;

    let stopped = daemon.stop();
    println!("What the host has recorded of all that:\n");
    let records = daemon.records();
    let lines: Vec<String> = records.iter().filter_map(|record| in_a_line(&record.to_string())).collect();
    println!("{}", indented(&lines.join("\n")));
    as_it_should &= stopped.code == Some(0) && lines.len() == 6;
    let last = asker.qemu(&host);
    drop(host);
    as_it_should &= last.ends_within(DEADLINE);
    if as_it_should {
        println!("All as it should be. Nothing is left running.");
        ExitCode::SUCCESS
    } else {
        println!("Something is NOT as it should be. The daemon's log:\n\n{}", indented(&stopped.stderr));
        ExitCode::FAILURE
    }
}

struct Story<'a> {
    host: &'a Host,
    asker: &'a Guest,
    as_it_should: bool,
}

impl Story<'_> {
    /// Runs the agent in the guest, and shows it.
    fn asks(&mut self, why: &str, what: &str, exit: i32) {
        if !why.is_empty() {
            println!("  # {why}");
        }
        println!("  $ fence_wire -W native {what}");
        let done = self.asker.run(&format!("fence_wire -W native {what}"));
        for line in done.stdout.lines().chain(done.stderr.lines()) {
            println!("  {line}");
        }
        let code = done.code.unwrap_or(-1);
        let verdict = if code == exit { "as expected" } else { "NOT as expected" };
        println!("  exit {code}, {verdict} ({:.0} ms)\n", done.elapsed.as_secs_f64() * 1000.0);
        self.as_it_should &= code == exit && self.asker.qemu(self.host).lives();
    }

    /// Says something of the host that is to be so.
    fn says(&mut self, is_so: bool, what: &str) {
        let what = if is_so { what.to_owned() } else { format!("NOT so: {what}") };
        println!("  {what}");
        self.as_it_should &= is_so;
    }
}
