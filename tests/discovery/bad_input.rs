//! XML and sockets of every wrong kind: one clear line for each in the log, said once, and every other guest is served.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::Duration;

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{GuestChannel, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, uuid_of};
use fencewire_tests::process::DEADLINE;

use crate::common::{NAME, connected, serial};

/// Nothing is connected in that time which is not to be connected.
const NEVER: Duration = Duration::from_millis(700);

/// A bridge that finds the channels of these guests and of a good one, whose channel comes with it.
fn serve(guests: impl IntoIterator<Item = Guest>, lines: &[&str]) -> (Daemon, GuestChannel) {
    let mut good = GuestChannel::listen();
    let setup = Daemon::setup().known([Guest::new("good").channel(NAME, good.path())]).known(guests);
    let daemon = lines.iter().fold(setup, |setup, line| setup.discover(line)).start();
    connected(&mut good);
    daemon.wait_connected(good.path(), 1);
    assert_eq!(ask(&mut good, STATUS, "good"), SUCCESS);
    (daemon, good)
}

/// Waits for the line, and sees that it is said once: also after all was gone through again, which a list brings about.
#[track_caller]
fn expect_once(daemon: &Daemon, good: &mut GuestChannel, parts: &[&str]) {
    let is_it = |line: &&str| parts.iter().all(|part| line.contains(part));
    let count = || daemon.log().lines().filter(is_it).count();
    daemon.wait_for_log(parts[0]);
    good.ask_list(DEADLINE);
    assert_eq!(count(), 1, "{parts:?} in\n{}", daemon.log());
}

fn raw(name: &str, device: &str) -> Guest {
    Guest::new(name).devices(device)
}

#[test]
fn a_guest_without_devices_and_one_with_thousands_cost_nothing() {
    let disk = |n| format!("<disk type='file'><source file='/nowhere/{n}'/><target dev='vd{}'/></disk>", letters(n));
    let many: String = (0..3_000).map(disk).collect();
    let (daemon, _good) = serve([Guest::new("none"), raw("many", &many)], &[]);
    assert!(!daemon.log().contains("not served"), "{}", daemon.log());
}

/// The n-th disk's letters, as the kernel counts them.
fn letters(mut n: usize) -> String {
    let mut letters = String::new();
    loop {
        letters.insert(0, char::from(b'a' + u8::try_from(n % 26).expect("a letter")));
        if n < 26 {
            return letters;
        }
        n = n / 26 - 1;
    }
}

#[test]
fn a_channel_that_nobody_can_connect_to_is_said_to_be_none() {
    let target = format!("<target type='virtio' name='{NAME}'/>");
    let guests = [
        raw("bare", &format!("<channel type='unix'>{target}</channel>")),
        raw("pty", &format!("<channel type='pty'>{target}</channel>")),
        raw("calls", &format!("<channel type='unix'><source mode='connect' path='/run/c.sock'/>{target}</channel>")),
        raw("relative", &format!("<channel type='unix'><source mode='bind' path='a.sock'/>{target}</channel>")),
        raw("climbs", &format!("<channel type='unix'><source mode='bind' path='/run/../a.sock'/>{target}</channel>")),
        Guest::new("long").channel(NAME, Path::new(&format!("/{}", "l".repeat(107)))),
    ];
    let (daemon, mut good) = serve(guests, &[]);
    for (name, what) in [
        ("bare", "names no socket"),
        ("pty", "type='pty'"),
        ("calls", "kind = \"unix-listen\""),
        ("relative", "is relative"),
        ("climbs", "has a \"..\" in it"),
        ("long", "over 107 bytes"),
    ] {
        let who = format!("guest {name} ({})", uuid_of(name));
        expect_once(&daemon, &mut good, &[&who, "is not served", what]);
    }
}

#[test]
fn two_channels_of_one_guest_are_both_served_and_one_of_two_guests_is_nobodys() {
    let [mut one, mut two, mut shared] = [GuestChannel::listen(), GuestChannel::listen(), GuestChannel::listen()];
    let guests = [
        Guest::new("two").channel(NAME, one.path()).channel(NAME, two.path()),
        Guest::new("left").channel(NAME, shared.path()),
        Guest::new("right").channel(NAME, shared.path()),
    ];
    let (daemon, mut good) = serve(guests, &[]);
    for channel in [&mut one, &mut two] {
        connected(channel);
        daemon.wait_connected(channel.path(), 1);
        assert_eq!(ask(channel, STATUS, "two"), SUCCESS);
    }
    let [left, right] = ["left", "right"].map(|name| format!("{name} ({})", uuid_of(name)));
    let path = format!("the socket {} is in the XML of more than one guest", shared.path().display());
    expect_once(&daemon, &mut good, &[&path, &left, &right]);
    assert!(!shared.accept_within(NEVER));
}

#[test]
fn only_what_really_lies_below_the_folder_is_found_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["ours", "theirs"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    symlink(at("theirs"), at("ours/out")).expect("a link");
    let mut inside = GuestChannel::listen_at(at("ours/in.sock"));
    let mut outside = GuestChannel::listen_at(at("theirs/out.sock"));
    let named = GuestChannel::listen_at(at("theirs/named.sock"));
    let guests = [
        raw("inside", &serial(inside.path())),
        raw("outside", &serial(outside.path())),
        raw("linked", &serial(&at("ours/out/out.sock"))),
        raw("climbs", &serial(&at("ours/../theirs/out.sock"))),
        Guest::new("named").channel(NAME, named.path()),
    ];
    let directory = format!("directory = {:?}", at("ours"));
    let (daemon, mut good) = serve(guests, &[&directory]);
    connected(&mut inside);
    daemon.wait_connected(inside.path(), 1);
    assert_eq!(ask(&mut inside, STATUS, "good"), SUCCESS);
    daemon.wait_connected(named.path(), 1);
    let who = |name: &str| format!("guest {name} ({})", uuid_of(name));
    expect_once(&daemon, &mut good, &[&who("linked"), "out of discover.directory"]);
    expect_once(&daemon, &mut good, &[&who("climbs"), "has a \"..\" in it"]);
    assert!(!daemon.log().contains(&who("outside")), "that port is not ours: {}", daemon.log());
    assert!(!outside.accept_within(NEVER));
}

/// Somebody else's socket, one that is a link, and what is no socket. They are tried again, and served once they are right.
#[test]
fn a_socket_of_somebody_else_is_not_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut theirs = GuestChannel::listen_at(at("theirs.sock"));
    let real = GuestChannel::listen_at(at("real.sock"));
    chown(theirs.path(), Some(12_345), None).expect("root may give files away: run this as root");
    symlink(real.path(), at("link.sock")).expect("a link");
    fs::write(at("file"), "").expect("a file");
    let names = ["theirs", "link", "file", "gone"];
    let paths = [at("theirs.sock"), at("link.sock"), at("file"), at("gone.sock")];
    let guests = names.iter().zip(&paths).map(|(name, path)| Guest::new(name).channel(NAME, path));
    let (daemon, mut good) = serve(guests, &[]);
    for (path, what) in
        paths.iter().zip(["belongs to user 12345", "is a symbolic link", "is not a socket", "No such file"])
    {
        let line = format!("the channel cannot be opened; trying again until it can channel=\"{}\"", path.display());
        expect_once(&daemon, &mut good, &[&line, what]);
    }
    chown(theirs.path(), Some(0), None).expect("root may");
    connected(&mut theirs);
    daemon.wait_connected(theirs.path(), 1);
    assert_eq!(ask(&mut theirs, STATUS, "good"), SUCCESS);
}

/// The socket's owner is one thing, who listens there another: a stranger who put a socket of root's name there is none.
#[test]
fn who_listens_is_looked_at_too() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let path = folder.path().join("a.sock");
    let address = format!("UNIX-LISTEN:{},fork", path.display());
    let mut socat = std::process::Command::new(fencewire_tests::process::program("setpriv"));
    socat.args(["--reuid=12345", "--regid=12345", "--clear-groups"]).arg(fencewire_tests::process::program("socat"));
    let _socat = fencewire_tests::process::Process::start(socat.arg(address).arg("PIPE"));
    fencewire_tests::process::wait_until(DEADLINE, "socat to listen", || path.exists().then_some(()));
    chown(&path, Some(0), None).expect("root may");
    let (daemon, mut good) = serve([Guest::new("stranger").channel(NAME, &path)], &[]);
    let named = format!("trying again until it can channel=\"{}\"", path.display());
    expect_once(&daemon, &mut good, &[&named, "who listens there is user 12345"]);
}

/// What `check` says of all this is the same, with what it finds.
#[test]
fn check_says_what_is_found_and_what_is_refused() {
    let bare = format!("<channel type='unix'><target type='virtio' name='{NAME}'/></channel>");
    let (daemon, good) = serve([raw("bare", &bare)], &[]);
    let mut check = std::process::Command::new(fencewire_tests::process::ours("fencewired"));
    let checked = fencewire_tests::process::run(check.arg("check").arg("--config").arg(daemon.config()), DEADLINE);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let found = format!("found: channel {} of guest good ({})", good.path().display(), uuid_of("good"));
    for part in [found.as_str(), "warning: guest bare", "can be served (0 [[channel]], 1 [[group]])"] {
        assert!(checked.stdout.contains(part), "{part} in {}", checked.stdout);
    }
}
