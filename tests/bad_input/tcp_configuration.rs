//! A TCP port's keys in the configuration, its key file, its address. What is wrong is refused, by `check` and by serving
//! alike, with the line; what may come right by itself is tried again until it does.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{IS_OFF, STATUS};
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::process::{DEADLINE, Finished, ours, program, run};
use fencewire_tests::tcp_channel::KEY;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;
use tempfile::TempDir;

/// `test` is the guest that `test:///default` has. `FOLDER` becomes the test's own.
const RIGHT: &str = r#"[[hypervisor]]
uri = "test:///default"
[wire]
classic = true
[[group]]
name = "cluster"
members = ["test"]
allow_self = true
[[channel]]
kind = "tcp"
listen = "127.0.0.1:1229"
key_file = "FOLDER/key"
group = "cluster"
[records]
path = "FOLDER/records.jsonl"
[control]
journal = "FOLDER/journal"
state = "FOLDER/state"
socket = "FOLDER/control.sock"
"#;

/// A configuration file in a folder of its own, with a good key beside it. It is only checked: the port is everybody's.
struct File {
    folder: TempDir,
    path: PathBuf,
}

impl File {
    /// [`RIGHT`] with one part replaced.
    #[track_caller]
    fn with(part: &str, by: &str) -> Self {
        assert!(RIGHT.contains(part), "{part}");
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("fencewired.toml");
        let text = RIGHT.replacen(part, by, 1).replace("FOLDER", &folder.path().display().to_string());
        fs::write(&path, text).expect("a configuration file");
        let file = Self { folder, path };
        file.put_key(&KEY, 0o600);
        file
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn put_key(&self, key: &[u8], mode: u32) {
        fs::write(self.key(), key).expect("a key file");
        fs::set_permissions(self.key(), fs::Permissions::from_mode(mode)).expect("permissions");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(ours("fencewired"));
        command.arg("check").arg("--config").arg(&self.path);
        command
    }

    /// What is said of it must be these lines and no other: `:LINE: error: …`, of which the beginning is enough.
    #[track_caller]
    fn says(&self, checked: &Finished, lines: &[&str]) {
        let said = format!("{}{}", checked.stdout, checked.stderr);
        let said: Vec<_> = said.lines().filter(|line| !line.contains(": can be served (")).collect();
        let (file, folder) = (self.path.display(), self.folder.path().display().to_string());
        let expected: Vec<_> = lines.iter().map(|line| format!("{file}{}", line.replace("FOLDER", &folder))).collect();
        let same =
            said.len() == expected.len() && said.iter().zip(&expected).all(|(said, line)| said.starts_with(line));
        assert!(same, "said\n{}\nand not\n{}", said.join("\n"), expected.join("\n"));
    }

    /// It is refused for these reasons, and by nobody served.
    #[track_caller]
    fn is_refused(&self, lines: &[&str]) {
        let checked = run(&mut self.command(), DEADLINE);
        self.says(&checked, lines);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(1), ""), "check");
        let served = run(Command::new(ours("fencewired")).arg("--config").arg(&self.path), DEADLINE);
        assert_eq!((served.code, served.stderr), (Some(1), checked.stderr), "serving says what check says");
    }
}

#[test]
fn the_one_that_all_others_are_made_of_is_right() {
    let file = File::with("tcp", "tcp");
    let checked = run(&mut file.command(), DEADLINE);
    file.says(&checked, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
}

#[test]
fn a_missing_key() {
    for (part, says) in [
        ("listen = \"127.0.0.1:1229\"\n", ":9: error: channel of kind \"tcp\" without listen: say where, such as"),
        ("key_file = \"FOLDER/key\"\n", ":9: error: channel of kind \"tcp\" without a key_file: anybody could fence"),
        ("group = \"cluster\"\n", ":9: error: channel of kind \"tcp\" without a group: say whom the key's holders may"),
    ] {
        File::with(part, "").is_refused(&[says]);
    }
}

#[test]
fn an_address_that_is_none() {
    for listen in [
        "1229",
        "true",
        "\"\"",
        "\"1229\"",
        "\":1229\"",
        "\"127.0.0.1\"",
        "\"127.0.0.1:\"",
        "\"127.0.0.1:65536\"",
        "\"127.0.0.1:-1\"",
        "\"127.0.0.1:fence\"",
        "\"localhost:1229\"",
        "\"127.0.0.256:1229\"",
        "\"::1:1229\"",
        "\"[::1]\"",
        "\"eth0:1229\"",
        "\"unix:/run/fence.sock\"",
    ] {
        let file = File::with("\"127.0.0.1:1229\"", listen);
        file.is_refused(&[":11: error: channel.listen = "]);
        let said = run(&mut file.command(), DEADLINE).stderr;
        assert!(said.contains("must be an address and a port in quotes"), "{said}");
    }
    // Which the system would choose, and nobody would know.
    File::with("127.0.0.1:1229", "127.0.0.1:0")
        .is_refused(&[":11: error: channel.listen = \"127.0.0.1:0\": port 0 is none"]);
    for listen in ["0.0.0.0:1229", "[::]:1229", "[::1]:1229", "127.0.0.1:65535"] {
        let file = File::with("127.0.0.1:1229", listen);
        file.says(&run(&mut file.command(), DEADLINE), &[]);
    }
}

#[test]
fn a_group_that_is_none() {
    File::with("group = \"cluster\"", "group = \"clusters\"")
        .is_refused(&[":13: error: channel.group = \"clusters\": there is no [[group]] of this name"]);
    let others =
        "allow_self = true\n[[group]]\nname = \"other\"\nmembers = [\"test\"]\nallow_self = true\nclassic = false";
    let file = File::with("allow_self = true", others);
    let text =
        fs::read_to_string(&file.path).expect("a configuration").replace("group = \"cluster\"", "group = \"other\"");
    fs::write(&file.path, text).expect("a configuration");
    file.is_refused(&[":18: error: channel.group = \"other\": that group may not use the classic wire"]);
}

#[test]
fn hashes_that_are_none_or_too_weak() {
    for key in ["hash", "auth"] {
        for (value, says) in [
            ("none", "anybody could fence. Use \"sha256\""),
            ("sha1", "proofs over SHA-1 can be forged"),
            ("SHA256", "must be \"sha256\" or \"sha512\""),
            ("md5", "must be \"sha256\" or \"sha512\""),
            ("", "must be \"sha256\" or \"sha512\""),
        ] {
            let file = File::with("group = ", &format!("{key} = \"{value}\"\ngroup = "));
            file.is_refused(&[&format!(":13: error: channel.{key} = \"{value}\": {says}")]);
        }
    }
    for value in ["256", "[\"sha256\"]"] {
        File::with("group = ", &format!("hash = {value}\ngroup = ")).is_refused(&[":13: error: invalid type: "]);
    }
}

/// Whoever lets anybody fence has to say so in full, and is told what it means.
#[test]
fn anybody_and_a_key() {
    let anybody = "hash = \"none-anybody-may-fence\"";
    let file = File::with("key_file = \"FOLDER/key\"", anybody);
    let checked = run(&mut file.command(), DEADLINE);
    file.says(
        &checked,
        &[":9: warning: hash = \"none-anybody-may-fence\": whoever can connect here may fence the whole"],
    );
    assert_eq!(checked.code, Some(0));
    File::with("group = ", &format!("{anybody}\ngroup = "))
        .is_refused(&[":12: error: channel.key_file: with hash = \"none-anybody-may-fence\" no key is asked for"]);
    File::with("key_file = \"FOLDER/key\"", &format!("{anybody}\nauth = \"sha256\"")).is_refused(&[
        ":9: warning: hash = \"none-anybody-may-fence\": whoever can connect here",
        ":13: error: channel.auth: with hash = \"none-anybody-may-fence\" nothing is proved; remove it",
    ]);
    File::with("key_file = \"FOLDER/key\"", "auth = \"none-anybody-may-fence\"").is_refused(&[
        ":9: error: channel of kind \"tcp\" without a key_file",
        ":12: error: channel.auth = \"none-anybody-may-fence\": must be",
    ]);
}

#[test]
fn keys_of_other_kinds() {
    for (key, value) in
        [("path", "/run/x.sock"), ("guest", "test"), ("params", "115200,8N1"), ("port", "serial"), ("mode", "0600")]
    {
        File::with("group = ", &format!("{key} = \"{value}\"\ngroup = ")).is_refused(&[&format!(
            ":13: error: channel.{key}: a tcp channel has none; it has listen, key_file and group"
        )]);
    }
    for (key, value, says) in [
        ("listen", "127.0.0.1:1229", "channel.listen: only for tcp and vsock"),
        ("key_file", "FOLDER/key", "channel.key_file: only for kind \"tcp\""),
        ("group", "cluster", "channel.group: only for kind \"tcp\""),
        ("hash", "sha256", "channel.hash: only for kind \"tcp\""),
        ("auth", "sha256", "channel.auth: only for kind \"tcp\""),
    ] {
        let channel = "kind = \"tcp\"\nlisten = \"127.0.0.1:1229\"\nkey_file = \"FOLDER/key\"\ngroup = \"cluster\"";
        let unix =
            format!("kind = \"unix-listen\"\npath = \"FOLDER/guest.sock\"\nguest = \"test\"\n{key} = \"{value}\"");
        File::with(channel, &unix).is_refused(&[&format!(":13: error: {says}")]);
    }
}

#[test]
fn an_address_twice() {
    let second = "[[channel]]\nkind = \"tcp\"\nlisten = \"127.0.0.1:1229\"\nkey_file = \"FOLDER/key\"\n\
                  group = \"cluster\"\n[records]";
    File::with("[records]", second)
        .is_refused(&[":14: error: channel.listen = \"127.0.0.1:1229\": line 9 has a channel there already"]);
}

#[test]
fn a_key_file_that_is_no_secret() {
    for mode in [0o604, 0o602, 0o644, 0o666, 0o601, 0o777] {
        let file = File::with("tcp", "tcp");
        file.put_key(&KEY, mode);
        file.is_refused(&[&format!(
            ":12: error: channel.key_file = \"FOLDER/key\" has permissions {mode:04o}, which lets everybody"
        )]);
    }
    for mode in [0o600, 0o400, 0o640, 0o660] {
        let file = File::with("tcp", "tcp");
        file.put_key(&KEY, mode);
        file.says(&run(&mut file.command(), DEADLINE), &[]);
    }
}

#[test]
fn a_key_file_that_holds_no_key() {
    let long = vec![7; 4_097];
    for (key, says) in [
        (&b""[..], "is empty: fill it with random bytes"),
        (&long, "has over 4096 bytes"),
        (b"fencewire-key-1\nand what follows", "is a key of the native wire"),
        (b"fencewire-key-1", "is a key of the native wire"),
    ] {
        let file = File::with("tcp", "tcp");
        file.put_key(key, 0o600);
        file.is_refused(&[&format!(":12: error: channel.key_file = \"FOLDER/key\" {says}")]);
    }
    for key in [&long[..4_096], b"7", b"\0", b"\n"] {
        let file = File::with("tcp", "tcp");
        file.put_key(key, 0o600);
        file.says(&run(&mut file.command(), DEADLINE), &[]);
    }
}

/// How what is there instead is made.
type Make = fn(&Path);

/// None of these is waited for: a fifo has no end until somebody writes to it.
#[test]
fn a_key_file_that_is_no_file() {
    let made: [(&str, Make); 4] = [
        ("cannot be read (No such file or directory (os error 2))", |_| {}),
        ("is no regular file", |path| fs::create_dir(path).expect("a folder")),
        ("is no regular file", |path| {
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
        }),
        ("is no regular file", |path| {
            std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
        }),
    ];
    for (says, make) in made {
        let file = File::with("tcp", "tcp");
        fs::remove_file(file.key()).expect("it can be removed");
        make(&file.key());
        if file.key().is_dir() {
            fs::set_permissions(file.key(), fs::Permissions::from_mode(0o700)).expect("permissions");
        }
        file.is_refused(&[&format!(":12: error: channel.key_file = \"FOLDER/key\" {says}")]);
    }
}

/// The bridge's user may not read it.
#[test]
fn a_key_file_that_another_user_has() {
    let file = File::with("tcp", "tcp");
    let mut command = if geteuid().is_root() {
        // Debian's `nobody`. The program may lie where that user may not go.
        let copy = file.folder.path().join("fencewired");
        fs::copy(ours("fencewired"), &copy).expect("a copy of the program");
        for path in [file.folder.path(), &file.path, &copy] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(copy).arg("check").arg("--config").arg(&file.path);
        command
    } else {
        file.put_key(&KEY, 0o000);
        file.command()
    };
    let checked = run(&mut command, DEADLINE);
    let says =
        ":12: error: channel.key_file = \"FOLDER/key\" cannot be read (Permission denied (os error 13)): let this";
    file.says(&checked, &[says]);
    assert_eq!(checked.code, Some(1));
}

/// Somebody else is there, and goes.
#[test]
fn a_port_that_is_in_use() {
    let guests = [Guest::new("vm1"), Guest::new("vm2").state(State::Shutoff)];
    let setup = Daemon::setup().known(guests).tcp("everybody", "").tcp("everybody", "");
    let [taken, free] = [0, 1].map(|number| setup.tcp_channels()[number].clone());
    let somebody = TcpListener::bind(taken.address()).expect("a port of our own");
    let mut daemon = setup.launch();

    let line = daemon.wait_for_log("the channel cannot be opened; trying again until it can");
    assert!(line.contains(&taken.name()) && line.contains("Address already in use"), "{line}");
    assert_eq!(free.ask(STATUS, "vm2"), IS_OFF, "the other port is served");

    drop(somebody);
    daemon.wait_for_log(&format!("listening channel=\"{}\"", taken.name()));
    assert_eq!(taken.ask(STATUS, "vm2"), IS_OFF);
    assert_eq!(daemon.log().matches("the channel cannot be opened").count(), 1, "said once");
    daemon.stop_and_expect_no_act();
}

/// An address of another machine's, or of this one's before it has it.
#[test]
fn an_address_that_is_not_this_machines() {
    let setup = Daemon::setup().known([Guest::new("vm1"), Guest::new("vm2").state(State::Shutoff)]);
    let mut daemon = setup.tcp("everybody", "").launch();
    let (good, config) = (daemon.tcp(0).clone(), daemon.config());
    assert_eq!(good.ask(STATUS, "vm2"), IS_OFF);
    let text = fs::read_to_string(&config).expect("a configuration");
    // Of a net that is for documents only.
    let elsewhere = good.section("everybody", "").replace("127.0.0.1:", "203.0.113.77:");
    fs::write(&config, text + &elsewhere).expect("a configuration");

    daemon.process().signal(rustix::process::Signal::HUP);

    let line = daemon.wait_for_log("the channel cannot be opened; trying again until it can");
    assert!(line.contains("tcp 203.0.113.77:") && line.contains("Cannot assign requested address"), "{line}");
    assert_eq!(good.ask(STATUS, "vm2"), IS_OFF, "the other port is served");
    daemon.stop_and_expect_no_act();
}
