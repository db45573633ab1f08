//! A guest that is being migrated from one libvirtd to the other, or has just been: "fenced" is never said of it while a
//! process of it lives on either. The bridge has a channel to its process on the host that it comes from.

use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::reconnect;
use fencewire_tests::daemon::{Daemon, Setup, states};
use fencewire_tests::guest_channel::{FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::process::{DEADLINE, Process, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Program, Qemu};
use rustix::process::Signal;

use crate::common::{ASKER, TARGET, ask, frame, host, mark, setup, start, wait_for_mark, wait_for_state};

/// The source libvirtd sees to the migration, so `virsh` only waits for it.
const BY_SOURCE: &[&str] = &["--p2p"];
/// `virsh` sees to it, step by step.
const BY_VIRSH: &[&str] = &[];

/// Two hosts; the asker runs on the first.
struct Hosts {
    from: Host,
    to: Host,
}

/// The target on its way from the first to the second.
struct Migration<'a> {
    hosts: &'a Hosts,
    /// Its process on the first.
    qemu: Qemu,
    process: Process,
}

/// It has a channel of its own, and what takes a while to migrate.
fn target(host: &Host) -> Machine {
    Machine::new(TARGET).serial(&host.path("target.sock")).runs(Program::FillsMemory)
}

impl Hosts {
    #[track_caller]
    fn new() -> Self {
        let (from, to) = (host(), Host::start());
        from.define(&target(&from));
        Self { from, to }
    }

    /// The target has no channel: here both of its processes would listen at the same path, and the one on the other host be
    /// seen to live by that.
    #[track_caller]
    fn without_channel() -> Self {
        let (from, to) = (host(), Host::start());
        from.define(&Machine::new(TARGET).runs(Program::FillsMemory));
        Self { from, to }
    }

    /// What a bridge that knows only the first is to serve.
    fn setup_of_one(&self) -> Setup {
        setup(&self.from).channel("unix", &self.from.path("target.sock"), TARGET)
    }

    /// What a bridge that knows both is to serve.
    fn setup(&self) -> Setup {
        self.setup_of_one().beside(&self.to.uri())
    }

    /// A bridge that knows both.
    #[track_caller]
    fn serve(&self) -> (Daemon, GuestChannel) {
        start(self.setup().hypervisor("deadline_ms = 6000"))
    }

    /// Lets the target go, so slowly that it is on its way until it is [hurried](Migration::hurry).
    #[track_caller]
    fn migrate_slowly(&self, way: &[&str]) -> Migration<'_> {
        let qemu = self.from.try_qemu(TARGET).unwrap_or_else(|| self.from.switch_on(TARGET));
        self.from.virsh(&["migrate-setspeed", TARGET, "1"]);
        let process = self.from.start_migration(TARGET, &self.to, way);
        wait_until(DEADLINE, "memory on its way", || {
            let job = self.from.virsh(&["domjobinfo", TARGET]);
            job.lines().any(|line| line.starts_with("Memory processed:") && !line.contains(" 0.000 ")).then_some(())
        });
        Migration { hosts: self, qemu, process }
    }

    fn states(&self) -> String {
        let of = |host: &Host| host.try_virsh(&["domstate", "--reason", TARGET]);
        format!("{:?} there, {:?} here", of(&self.to), of(&self.from))
    }
}

impl Migration<'_> {
    /// Lets it come to its end.
    #[track_caller]
    fn hurry(&self) {
        self.hosts.from.virsh(&["migrate-setspeed", TARGET, "10000"]);
    }

    /// Lets it come to its end, and waits for that.
    #[track_caller]
    fn arrive(&mut self) {
        self.hurry();
        self.process.wait(DEADLINE);
        assert_eq!(self.hosts.from.state(TARGET), "shut off (migrated)");
    }

    /// Says that nothing of the target lives.
    #[track_caller]
    fn expect_no_process(&self) {
        let Hosts { from, to } = self.hosts;
        let lives = self.qemu.lives() || !from.qemus(TARGET).is_empty() || !to.qemus(TARGET).is_empty();
        assert!(!lives, "it lives: {}", self.hosts.states());
    }

    /// Says that "fenced" was no lie, now and when the migration has come to whatever end it comes to.
    #[track_caller]
    fn expect_fenced_for_good(&mut self) {
        self.expect_no_process();
        self.process.wait(DEADLINE);
        self.expect_no_process();
    }
}

/// In the middle: its migration is ended, and it is fenced where it comes from.
#[test]
fn a_guest_is_fenced_in_the_middle_of_its_migration() {
    let hosts = Hosts::new();
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    let (_daemon, mut asker) = hosts.serve();
    assert_eq!(ask(&mut asker, STATUS, TARGET), FAILED, "both hosts show it");
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migration.expect_fenced_for_good();
}

/// It hangs on its way, so that its migration cannot be ended: nothing is done to it, then or later.
#[test]
fn a_guest_that_hangs_in_the_middle_of_its_migration_is_left_alone() {
    let hosts = Hosts::new();
    let migration = hosts.migrate_slowly(BY_SOURCE);
    let (_daemon, mut asker) = start(hosts.setup().hypervisor("deadline_ms = 2500"));
    migration.qemu.hang();
    let off = frame(OFF);
    assert_eq!(asker.ask(&off, DEADLINE), FAILED);
    migration.qemu.go_on();
    wait_until(DEADLINE, "what was begun to end", || (ask(&mut asker, ON, TARGET) == SUCCESS).then_some(()));
    assert_eq!(asker.ask(&off, DEADLINE), FAILED, "that request is over");
    assert_eq!(hosts.from.told("virDomainDestroy", TARGET), 0);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migration.expect_no_process();
}

/// In the middle, by a bridge that knows only the host that it comes from, and one that knows only where it goes.
#[test]
fn a_guest_is_fenced_in_the_middle_of_its_migration_where_it_runs() {
    let hosts = Hosts::new();
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    hosts.to.run(&Machine::new(ASKER));
    let (_daemon, mut asker) = start(setup(&hosts.to).hypervisor("deadline_ms = 1500"));
    assert_eq!(ask(&mut asker, OFF, TARGET), FAILED, "it is not there yet, or was never there");
    let (_daemon, mut asker) = start(hosts.setup_of_one());
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migration.expect_fenced_for_good();
}

/// Just arrived: it is off where it came from, "migrated", and is fenced where it is. It is the same run of it.
#[test]
fn a_guest_is_fenced_where_it_was_migrated_to() {
    let hosts = Hosts::new();
    hosts.from.switch_on(TARGET);
    let (_daemon, mut asker) = hosts.serve();
    let marked = wait_for_mark(&hosts.from);
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    migration.arrive();
    assert_eq!(mark(&hosts.to), Some(marked));
    let there = hosts.to.qemu(TARGET);
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!there.lives());
    migration.expect_no_process();
    assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF, "both say so");
}

/// Just arrived on a host that the bridge does not know: for all that is known, it is not off.
#[test]
fn a_guest_that_went_to_a_host_that_nobody_knows_is_never_fenced() {
    let hosts = Hosts::new();
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    let (_daemon, mut asker) = start(hosts.setup_of_one());
    migration.arrive();
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(ask(&mut asker, action, TARGET), FAILED, "action {action}");
    }
    assert!(hosts.to.qemu(TARGET).lives());
}

/// The libvirtd that it left is restarted, and so is the bridge: libvirt has forgotten then where it went, and the
/// bridge has not. What ends that is a new start there.
#[test]
fn a_guest_that_went_away_is_never_fenced_though_libvirt_forgets_it() {
    let mut hosts = Hosts::without_channel();
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    let (mut daemon, mut asker) = start(setup(&hosts.from));
    migration.arrive();
    drop(migration);
    let there = hosts.to.qemu(TARGET);
    hosts.from.stop();
    hosts.from.start_again();
    assert_eq!(hosts.from.state(TARGET), "shut off (unknown)", "else it is not what this test is about");
    expect_away(&mut asker);
    daemon.kill();
    daemon.start_again();
    reconnect([&mut asker]);
    expect_away(&mut asker);
    assert!(there.lives());

    // Nobody here is told that it has ended there, until a person sees to it.
    hosts.to.virsh(&["destroy", TARGET]);
    expect_away(&mut asker);
    hosts.from.virsh(&["start", TARGET, "--paused"]);
    hosts.from.virsh(&["destroy", TARGET]);
    wait_until(DEADLINE, "it to be off", || (ask(&mut asker, STATUS, TARGET) == IS_OFF).then_some(()));
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
}

/// It is to come back, and does not arrive. libvirt then says there what it says of a guest that has crashed; it goes
/// on where it was. When it has come back it is fenced.
#[test]
fn a_guest_that_did_not_come_back_is_never_fenced() {
    let hosts = Hosts::without_channel();
    let mut migration = hosts.migrate_slowly(BY_SOURCE);
    let (_daemon, mut asker) = start(setup(&hosts.from));
    migration.arrive();
    hosts.to.virsh(&["migrate-setspeed", TARGET, "1"]);
    let mut back = hosts.to.start_migration(TARGET, &hosts.from, BY_SOURCE);
    wait_for_state(&hosts.from, TARGET, "paused (migrating)");
    assert_ne!(ask(&mut asker, STATUS, TARGET), IS_OFF);
    assert_eq!(ask(&mut asker, OFF, TARGET), FAILED);
    hosts.to.virsh(&["domjobabort", TARGET]);
    back.wait(DEADLINE);
    let state = wait_until(DEADLINE, "it to be off", || {
        let state = hosts.from.state(TARGET);
        state.starts_with("shut off").then_some(state)
    });
    assert_ne!(state, "shut off (migrated)", "else it is not what this test is about");
    expect_away(&mut asker);
    assert!(hosts.to.qemu(TARGET).lives());

    hosts.to.virsh(&["migrate-setspeed", TARGET, "10000"]);
    hosts.to.start_migration(TARGET, &hosts.from, BY_SOURCE).wait(DEADLINE);
    let here = hosts.from.qemu(TARGET);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!here.lives());
    migration.expect_no_process();
    assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
}

/// Says that nothing is said to be done of a target that may run elsewhere.
#[track_caller]
fn expect_away(asker: &mut GuestChannel) {
    assert_eq!(states(asker)[TARGET], 1, "on a list");
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(ask(asker, action, TARGET), FAILED, "action {action}");
    }
}

/// All of it is across and it stands still on both hosts, because whoever sees to the migration hangs. While a process of
/// it is left, on whichever of them, it is not said to be fenced.
#[test]
fn a_guest_that_may_go_on_on_either_host_is_not_fenced() {
    let hosts = Hosts::new();
    let mut migration = hosts.migrate_slowly(BY_VIRSH);
    let (_daemon, mut asker) = hosts.serve();
    migration.process.signal(Signal::STOP);
    migration.hurry();
    wait_for_state(&hosts.from, TARGET, "paused (migrating)");
    assert_eq!(ask(&mut asker, OFF, TARGET), FAILED);
    migration.process.signal(Signal::CONT);
    migration.process.wait(DEADLINE);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    migration.expect_no_process();
}

/// The host that it leaves hangs. It runs there, and that it is paused on the other is no sign of anything.
#[test]
fn a_guest_that_leaves_a_host_that_hangs_is_not_fenced() {
    let hosts = Hosts::new();
    let migration = hosts.migrate_slowly(BY_SOURCE);
    let (_daemon, mut asker) = hosts.serve();
    hosts.from.hang();
    assert_eq!(ask(&mut asker, OFF, TARGET), FAILED);
    assert!(migration.qemu.lives());
    hosts.from.go_on();
    wait_until(DEADLINE, "a fence that works", || (ask(&mut asker, OFF, TARGET) == SUCCESS).then_some(()));
    migration.expect_no_process();
}

/// A guest that is defined nowhere is fenced in the middle of its migration, and where it has gone.
#[test]
fn a_transient_guest_is_fenced_on_its_way_and_where_it_went() {
    let hosts = Hosts::new();
    hosts.from.virsh(&["undefine", TARGET]);
    let (_daemon, mut asker) = hosts.serve();
    for arrives in [false, true] {
        hosts.from.run_transient(&target(&hosts.from));
        let mut migration = hosts.migrate_slowly(BY_SOURCE);
        if arrives {
            migration.hurry();
            migration.process.wait(DEADLINE);
        }
        assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS, "{}", hosts.states());
        migration.expect_fenced_for_good();
    }
}

/// Moments at which a guest is fenced while it migrates, this far apart. A migration takes half a second to two, more than
/// half of which is the other QEMU's start.
const MOMENTS: u32 = 10;
const APART: Duration = Duration::from_millis(90);

/// Migrations that libvirt itself does not bring to an end, at most: it does so of one in 150.
const HUNG_MAX: u32 = 2;

/// At any moment of a migration, however it is seen to: what is answered is so, and stays so.
#[test]
fn a_guest_is_fenced_at_any_moment_of_its_migration() {
    let (mut moment, mut hung) = (0, 0);
    while moment < MOMENTS {
        let hosts = Hosts::new();
        let (_daemon, mut asker) = hosts.serve();
        while moment < MOMENTS && is_fenced_at(moment, &hosts, &mut asker) {
            moment += 1;
        }
        if moment < MOMENTS {
            // These libvirtds hold on to the guest for ever. That nothing false was said of it was looked at.
            (moment, hung) = (moment + 1, hung + 1);
            assert!(hung <= HUNG_MAX, "{hung} of {moment} migrations have hung");
        }
    }
}

/// Has the target fenced so long after its migration has begun, and once more when that is over. Says whether it came to an
/// end; if not, it was only looked whether what was said was so.
#[track_caller]
fn is_fenced_at(moment: u32, hosts: &Hosts, asker: &mut GuestChannel) -> bool {
    let qemu = hosts.from.switch_on(TARGET);
    let process =
        hosts.from.start_migration(TARGET, &hosts.to, if moment.is_multiple_of(2) { BY_SOURCE } else { BY_VIRSH });
    let mut migration = Migration { hosts, qemu, process };
    thread::sleep(moment * APART);
    let is_fenced = ask(asker, OFF, TARGET) == SUCCESS;
    if is_fenced {
        migration.expect_no_process();
    }
    let has_ended = migration.process.ends_within(DEADLINE);
    if !has_ended {
        migration.process.kill();
    }
    if is_fenced {
        migration.expect_no_process();
    }
    if has_ended {
        assert_eq!(ask(asker, OFF, TARGET), SUCCESS, "when it is over, {}", hosts.states());
        migration.expect_no_process();
    }
    has_ended
}

/// At any moment of a migration, by a bridge that knows only the host that it comes from: "fenced" is so and stays so;
/// and when the migration is over it is known to be away if it is, and can be fenced if it is not.
#[test]
fn a_guest_is_fenced_at_any_moment_or_known_to_have_gone() {
    let mut hung = 0;
    for moment in 0..MOMENTS {
        let hosts = Hosts::without_channel();
        let (_daemon, mut asker) = start(setup(&hosts.from).hypervisor("deadline_ms = 6000"));
        let way = if moment.is_multiple_of(2) { BY_VIRSH } else { BY_SOURCE };
        let qemu = hosts.from.switch_on(TARGET);
        let process = hosts.from.start_migration(TARGET, &hosts.to, way);
        let mut migration = Migration { hosts: &hosts, qemu, process };
        thread::sleep(moment * APART);
        let is_fenced = ask(&mut asker, OFF, TARGET) == SUCCESS;
        if is_fenced {
            migration.expect_no_process();
        }
        let has_ended = migration.process.ends_within(DEADLINE);
        if is_fenced {
            migration.expect_no_process();
        }
        if has_ended {
            let answer = if hosts.to.qemus(TARGET).is_empty() { SUCCESS } else { FAILED };
            assert_eq!(ask(&mut asker, OFF, TARGET), answer, "moment {moment}: {}", hosts.states());
        } else {
            hung += 1;
            assert!(hung <= HUNG_MAX, "{hung} of {moment} migrations have hung");
        }
    }
}
