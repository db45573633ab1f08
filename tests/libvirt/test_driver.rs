//! Several connections to libvirt's own test driver in one bridge: the same UUID in two files, in every pair of states.

use fencewire_tests::daemon::{Daemon, states};
use fencewire_tests::guest_channel::{FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, LibvirtFile, State};
use tempfile::TempDir;

use crate::common::{ASKER, TARGET, ask, start};

/// A bridge on these hypervisors, each with the target in that state, or without it. The asker runs on the first.
struct Several {
    asker: GuestChannel,
    _daemon: Daemon,
    _folder: TempDir,
}

impl Several {
    #[track_caller]
    fn with(targets: &[Option<State>]) -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let uri = |(number, state): (usize, &Option<State>)| {
            let asker = (number == 0).then(|| Guest::new(ASKER));
            let target = state.map(|state| Guest::new(TARGET).state(state));
            let file = LibvirtFile::new(folder.path().join(format!("{number}.xml")));
            file.guests(asker.into_iter().chain(target)).write()
        };
        let uris: Vec<String> = targets.iter().enumerate().map(uri).collect();
        Self::on(&uris, folder)
    }

    #[track_caller]
    fn on(uris: &[String], folder: TempDir) -> Self {
        let setup = Daemon::setup().uri(&uris[0]).served([Guest::new(ASKER)]).group("both", &[ASKER, TARGET], "");
        let setup = uris[1..].iter().fold(setup, |setup, uri| setup.beside(uri));
        let (daemon, asker) = start(setup.hypervisor("deadline_ms = 1500"));
        Self { asker, _daemon: daemon, _folder: folder }
    }

    #[track_caller]
    fn ask(&mut self, action: u8) -> u8 {
        ask(&mut self.asker, action, TARGET)
    }

    /// How it is listed.
    #[track_caller]
    fn listed(&mut self) -> Option<u8> {
        states(&mut self.asker).get(TARGET).copied()
    }
}

const ON_: Option<State> = Some(State::Running);
const OFF_: Option<State> = Some(State::Shutoff);
const PAUSED: Option<State> = Some(State::Paused);
const CRASHED: Option<State> = Some(State::Crashed);

/// Active on one: fenced there, and off afterwards, for both say so. The other's definition is not started by a reboot.
#[test]
fn a_guest_that_is_active_on_one_is_fenced_there() {
    for states in [[ON_, OFF_], [OFF_, ON_], [ON_, None], [None, ON_], [PAUSED, OFF_], [OFF_, PAUSED]] {
        let mut several = Several::with(&states);
        assert_eq!((several.ask(STATUS), several.listed()), (SUCCESS, Some(1)), "{states:?}");
        assert_eq!(several.ask(REBOOT), SUCCESS, "{states:?}");
        // Were it started on the other, or on both, this would be no answer.
        assert_eq!((several.ask(STATUS), several.listed()), (SUCCESS, Some(1)), "{states:?}");
        assert_eq!(several.ask(OFF), SUCCESS, "{states:?}");
        assert_eq!((several.ask(STATUS), several.listed()), (IS_OFF, Some(5)), "{states:?}");
    }
}

/// Crashed is active, and unknown, until it is fenced.
#[test]
fn a_guest_that_crashed_on_one_is_fenced_there() {
    for states in [[CRASHED, OFF_], [OFF_, CRASHED]] {
        let mut several = Several::with(&states);
        assert_eq!((several.ask(STATUS), several.listed()), (FAILED, Some(1)), "{states:?}");
        assert_eq!(several.ask(OFF), SUCCESS, "{states:?}");
        assert_eq!(several.ask(STATUS), IS_OFF, "{states:?}");
    }
}

/// Active on two: nothing is done, and it is still active on two afterwards.
#[test]
fn a_guest_that_is_active_on_two_is_left_alone() {
    for states in [[ON_, ON_], [ON_, PAUSED], [PAUSED, CRASHED]] {
        let mut several = Several::with(&states);
        for action in [STATUS, OFF, REBOOT, ON, STATUS] {
            assert_eq!(several.ask(action), FAILED, "{states:?}, action {action}");
        }
        assert_eq!(several.listed(), Some(1), "{states:?}");
    }
}

/// Active nowhere: off, and it is started on one of them only.
#[test]
fn a_guest_that_is_active_nowhere_is_off() {
    for states in [[OFF_, OFF_], [OFF_, None], [None, OFF_]] {
        let mut several = Several::with(&states);
        assert_eq!((several.ask(STATUS), several.listed()), (IS_OFF, Some(5)), "{states:?}");
        assert_eq!(several.ask(OFF), SUCCESS, "{states:?}");
        assert_eq!(several.ask(ON), SUCCESS, "{states:?}");
        assert_eq!((several.ask(STATUS), several.listed()), (SUCCESS, Some(1)), "{states:?}");
    }
}

/// Defined nowhere: there is no such guest, and nobody says that it is off.
#[test]
fn a_guest_that_is_nowhere_is_never_off() {
    let mut several = Several::with(&[None, None]);
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(several.ask(action), FAILED, "action {action}");
    }
    assert_eq!(several.listed(), None);
}

/// One of three cannot be reached: a guest that is active on another is fenced, and is off nowhere then, for it may run
/// on that one.
#[test]
fn a_hypervisor_that_cannot_be_reached_makes_off_unknown() {
    let folder = tempfile::tempdir().expect("a private folder");
    let file = |number: usize, guests: &[Guest]| {
        LibvirtFile::new(folder.path().join(format!("{number}.xml"))).guests(guests.iter().cloned()).write()
    };
    let uris = [
        file(0, &[Guest::new(ASKER), Guest::new(TARGET).state(State::Shutoff)]),
        file(1, &[Guest::new(TARGET)]),
        format!("test://{}/missing.xml", folder.path().display()),
    ];
    let mut several = Several::on(&uris, folder);
    assert_eq!(several.ask(STATUS), SUCCESS);
    assert_eq!(several.ask(OFF), SUCCESS);
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(several.ask(action), FAILED, "action {action}");
    }
    assert_eq!(several.listed(), Some(1), "what is not known to be off is not listed as off");
}
