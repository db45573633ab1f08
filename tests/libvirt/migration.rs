//! A guest that is being migrated from one libvirtd to the other, or has just been.

use std::time::Duration;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{FAILED, GuestChannel, OFF, REPLY_LENGTH, STATUS, SUCCESS, reply};
use fencewire_tests::process::{DEADLINE, Process, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Program, Qemu};

use crate::common::{TARGET, ask, frame, host, setup, start};

/// Two hosts, and the target on its way from the first to the second for as long as it is let.
struct Migrating {
    from: Host,
    to: Host,
    qemu: Qemu,
    migration: Process,
}

impl Migrating {
    #[track_caller]
    fn start(flags: &[&str]) -> Self {
        let (from, to) = (host(), Host::start());
        let qemu = from.run(&Machine::new(TARGET).runs(Program::FillsMemory));
        from.virsh(&["migrate-setspeed", TARGET, "1"]);
        let migration = from.start_migration(TARGET, &to, flags);
        let this = Self { from, to, qemu, migration };
        wait_until(DEADLINE, "memory on its way", || {
            let job = this.from.virsh(&["domjobinfo", TARGET]);
            job.lines().any(|line| line.starts_with("Memory processed:") && !line.contains(" 0.000 ")).then_some(())
        });
        this
    }

    /// Lets it come to its end.
    fn hurry(&self) {
        // It may have ended.
        drop(self.from.try_virsh(&["migrate-setspeed", TARGET, "10000"]));
    }

    /// A bridge that knows both.
    fn serve(&self) -> (Daemon, GuestChannel) {
        start(setup(&self.from).beside(&self.to.uri()).hypervisor("deadline_ms = 6000"))
    }

    fn states(&self) -> String {
        let of = |host: &Host| host.try_virsh(&["domstate", "--reason", TARGET]);
        format!("{:?} {:?}", of(&self.from), of(&self.to))
    }

    /// Says that "fenced" was no lie: no process of the guest lives now, and none comes back.
    #[track_caller]
    fn expect_fenced(&mut self) {
        self.expect_no_process();
        self.migration.wait(DEADLINE);
        self.expect_no_process();
    }

    #[track_caller]
    fn expect_no_process(&self) {
        let lives = [self.from.qemus(TARGET), self.to.qemus(TARGET)];
        assert!(!self.qemu.lives() && lives.iter().all(Vec::is_empty), "it lives: {lives:?}, {}", self.states());
    }
}

/// In the middle: its migration is ended, then it is fenced.
#[test]
fn a_guest_is_fenced_in_the_middle_of_its_migration() {
    let mut migrating = Migrating::start(&["--p2p"]);
    let (_daemon, mut asker) = migrating.serve();
    println!("{}", ask(&mut asker, STATUS, TARGET));
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migrating.expect_fenced();
}

/// In the middle, by a bridge that knows its source only.
#[test]
fn a_guest_is_fenced_by_a_bridge_that_knows_where_it_comes_from() {
    let mut migrating = Migrating::start(&["--p2p"]);
    let (_daemon, mut asker) = start(setup(&migrating.from));
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migrating.expect_fenced();
}
