use super::*;
use crate::channels::{ChannelKind, ChannelSpec, GuestChannel, PortType, TtyParams};
use crate::guests::Member;
use fencewire_core::PowerAction;

/// A configuration that nothing is wrong with, a line for each number.
const GOOD: [&str; 14] = [
    /*  1 */ "[[hypervisor]]",
    /*  2 */ "uri = \"qemu:///system\"",
    /*  3 */ "[wire]",
    /*  4 */ "classic = true",
    /*  5 */ "[[channel]]",
    /*  6 */ "kind = \"tty\"",
    /*  7 */ "path = \"/dev/null\"",
    /*  8 */ "guest = \"vm1\"",
    /*  9 */ "[[group]]",
    /* 10 */ "name = \"g\"",
    /* 11 */ "members = [\"vm1\", \"vm2\"]",
    /* 12 */ "[records]",
    /* 13 */ "[control]",
    /* 14 */ "",
];

/// The good one with another text in place of that line, and what is said of it.
fn with(line: usize, text: &str) -> (Option<Config>, Vec<Finding>) {
    let mut lines = GOOD.map(str::to_owned);
    text.clone_into(&mut lines[line - 1]);
    said_of(&lines.join("\n"))
}

fn said_of(text: &str) -> (Option<Config>, Vec<Finding>) {
    let loaded = parse(Path::new("a.toml"), text);
    (loaded.config, loaded.findings.iter().cloned().collect())
}

/// The one channel, which is a guest's.
#[track_caller]
fn channel(config: &Config) -> GuestChannel {
    match &config.channels[..] {
        [ChannelSpec::Guest(channel)] => channel.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn config(line: usize, text: &str) -> Config {
    let (config, findings) = with(line, text);
    config.unwrap_or_else(|| panic!("{text}: {findings:?}"))
}

#[test]
fn the_good_one_is_good_and_has_the_defaults() {
    let config = config(14, "");
    assert_eq!(said_of(&GOOD.join("\n")).1, []);
    assert_eq!(config.hypervisors[0].workers, 4);
    assert_eq!((config.hypervisors[0].deadline, config.time_to_act), (Millis(20_000), Millis(25_000)));
    assert_eq!(config.journal, Path::new("/run/fencewire/journal"));
    assert_eq!(config.state, Path::new("/var/lib/fencewire"));
    let records = RecordsConfig { path: "/var/log/fencewire/records.jsonl".into(), required: false };
    assert_eq!(config.records, records);
    assert!(!config.classic_virtio);
    let group = &config.groups[0];
    assert!(group.classic && !group.allow_self && group.budget_per_minute == 30);
    assert!(group.actions.has(None) && group.actions.has(Some(PowerAction::Off)));
    let channel = channel(&config);
    assert_eq!((channel.kind, channel.port), (ChannelKind::Tty(TtyParams::default()), PortType::Serial));
    assert_eq!(channel.guest, Member::Name("vm1".to_owned()));
}

#[test]
fn what_is_given_is_taken() {
    let two = "uri = \"test:///default\"\nworkers = 16\ndeadline_ms = 100\n[[hypervisor]]\nuri = \"xen:///\"";
    let hypervisors = config(2, two).hypervisors;
    assert_eq!((hypervisors[0].workers, hypervisors[0].deadline), (16, Millis(100)));
    assert_eq!(hypervisors[1].uri, "xen:///");
    assert_eq!(config(4, "classic = true\nclassic_timeout_s = 600").time_to_act, Millis(600_000));
    assert!(config(4, "classic = true\nclassic_virtio = true").classic_virtio);
    assert!(config(4, "keyless = true").keyless, "and nobody needs the classic wire then");
    assert_eq!(config(13, "[control]\njournal = \"/j\"").journal, Path::new("/j"));
    assert_eq!(config(13, "[control]\nstate = \"/s\"").state, Path::new("/s"));
    assert!(config(12, "[records]\npath = \"/r\"\nrequired = true").records.required);
    assert_eq!(channel(&config(8, "guest = \"vm1\"\nport = \"virtio\"")).port, PortType::Virtio);
    let called =
        "kind = \"unix-listen\"\nmode = \"0660\"\npath = \"/run/x\"\nguest = \"vm1\"\n[[channel]]\nkind = \"tty\"";
    let called = config(6, called);
    assert!(
        matches!(&called.channels[0], ChannelSpec::Guest(own) if own.kind == ChannelKind::UnixListen { mode: 0o660 })
    );
    let uuid = "b33f94f9-8a30-4e83-9165-fd8681ee13cf";
    let channel = channel(&config(8, &format!("guest = \"{uuid}\"")));
    assert!(matches!(channel.guest, Member::Uuid(guest) if guest.to_string() == uuid), "{channel:?}");
}

/// A parity bit is one more, and takes none of a byte's eight. With fewer than eight, neither wire is served.
#[test]
fn a_serial_line_has_eight_data_bits_whatever_is_spoken_on_it() {
    for wires in ["classic = true", "keyless = true", "classic = true\nkeyless = true"] {
        let said = |params: &str| {
            let text = GOOD.join("\n").replace("classic = true", wires);
            said_of(&text.replace("guest = \"vm1\"", &format!("guest = \"vm1\"\nparams = \"{params}\"")))
        };
        for params in ["9600,8N1", "9600,8e1", "1200,8O2"] {
            let (config, findings) = said(params);
            assert!(config.is_some() && findings.is_empty(), "{wires}, {params}: {findings:?}");
        }
        for params in ["9600,7N1", "9600,7E1", "9600,7O2", "9600,6N1", "9600,5N1"] {
            let (config, findings) = said(params);
            let [only] = &findings[..] else { panic!("{wires}, {params}: {findings:?}") };
            assert!(
                config.is_none() && only.is_error && only.text.contains("Set 8 here and at the other end"),
                "{only:?}"
            );
        }
    }
}

#[test]
fn channels_are_looked_for_unless_the_file_says_otherwise() {
    let without = GOOD.join("\n").replace("[[channel]]\nkind = \"tty\"\npath = \"/dev/null\"\nguest = \"vm1\"", "");
    let (found, findings) = said_of(&without);
    let found = found.unwrap_or_else(|| panic!("{findings:?}"));
    assert_eq!(
        (found.discover.virtio_name.as_deref(), &found.discover.directory),
        (Some("org.fencewire.fence.0"), &None)
    );
    let (none, findings) = said_of(&format!("{without}\n[discover]\nvirtio_name = \"\""));
    assert!(
        none.is_none() && findings.iter().any(|finding| finding.text.contains("none are looked for")),
        "{findings:?}"
    );
    let rules =
        config(14, "[discover]\nvirtio_name = \"a.0\"\ndirectory = \"/etc\"\nowners = [\"7\", \"root\"]").discover;
    assert_eq!((rules.virtio_name.as_deref(), rules.directory.as_deref()), (Some("a.0"), Some(Path::new("/etc"))));
    assert_eq!(rules.owners, [7, 0]);
    assert!(config(14, "[discover]\nvirtio_name = \"\"\ndirectory = \"/etc\"").discover.is_on());
    assert!(!config(14, "[discover]\nvirtio_name = \"\"\ndirectory = \"\"").discover.is_on());
}

#[test]
fn a_group_has_the_wire_of_its_own_or_that_of_all() {
    for (of_all, own, expected) in
        [("true", "", true), ("true", "classic = false", false), ("false", "classic = true", true)]
    {
        let text = GOOD.join("\n").replace("classic = true", &format!("classic = {of_all}"));
        let text = text.replace(
            "[records]",
            &format!("{own}\n[[group]]\nname = \"h\"\nmembers = [\"a\", \"b\"]\nclassic = true\n[records]"),
        );
        let (config, findings) = said_of(&text);
        let config = config.unwrap_or_else(|| panic!("{findings:?}"));
        assert_eq!(config.groups[0].classic, expected, "{of_all}, {own}");
    }
}

#[test]
fn a_group_narrowed_to_some_actions_has_no_others() {
    let actions = config(11, "members = [\"vm1\", \"vm2\"]\nactions = [\"status\", \"reboot\"]").groups[0].actions;
    assert!(actions.has(None) && actions.has(Some(PowerAction::Reboot)));
    assert!(!actions.has(Some(PowerAction::Off)) && !actions.has(Some(PowerAction::On)));
    let none = config(11, "members = [\"vm1\", \"vm2\"]\nactions = []").groups[0].actions;
    assert!(!none.has(None));
}

/// Which line is replaced by what; which line is said to be wrong (0: the file), and a part of what is said.
const ERRORS: &[(usize, &str, usize, &str)] = &[
    (1, "[[hypervisors]]", 1, "unknown field `hypervisors`"),
    (2, "url = \"qemu:///system\"", 2, "unknown field `url`"),
    (2, "", 1, "missing field `uri`"),
    (2, "uri = \"system\"", 2, "not a libvirt URI"),
    (2, "uri = \"qemu:///system\"\nworkers = 0", 3, "must be 1 to 16"),
    (2, "uri = \"qemu:///system\"\nworkers = 17", 3, "must be 1 to 16"),
    (2, "uri = \"qemu:///system\"\nworkers = \"four\"", 3, "invalid type"),
    (2, "uri = \"qemu:///system\"\ndeadline_ms = 99", 3, "must be 100 to 600000"),
    (2, "uri = \"qemu:///system\"\n[[hypervisor]]\nuri = \"qemu:///system\"", 4, "of this uri already"),
    (4, "", 0, "no group may use the classic wire"),
    (4, "classic = false", 0, "no group may use the classic wire"),
    (4, "classic = 1", 4, "invalid type"),
    (4, "classic = true\nclassic_timeout_s = 0", 5, "must be 1 to 600"),
    (4, "classic = true\nclassic_timeout_s = 601", 5, "must be 1 to 600"),
    (4, "classic = true\nkeyless = 1", 5, "invalid type"),
    (4, "classic = true\nmaster_key = \"/nowhere/k\"", 5, "cannot be read"),
    (4, "classic_virtio = true", 0, "classic_virtio = true without"),
    (6, "kind = \"pipe\"", 6, "must be \"unix\", \"unix-listen\", \"tty\" or \"tcp\""),
    (6, "kind = \"vsock\"", 6, "not served by this version"),
    (6, "kind = \"hybrid-vsock\"", 6, "not served by this version"),
    (6, "kind = \"unix\"", 7, "is not a socket"),
    (6, "", 5, "missing field `kind`"),
    (7, "", 5, "without a path"),
    (7, "path = \"dev/null\"", 7, "must begin with"),
    (7, "path = \"/dev\"", 7, "is not a character device"),
    (8, "", 5, "without a guest"),
    (8, "guest = \"\"", 8, "is no guest's name"),
    (8, "guest = \"a\\nb\"", 8, "is no guest's name"),
    (8, "guest = \"vm1\"\nport = \"usb\"", 9, "must be \"serial\" or \"virtio\""),
    (8, "guest = \"vm1\"\nparams = \"fast\"", 9, "must be like \"115200,8N1\""),
    (8, "guest = \"vm1\"\nparams = \"115200,9N1\"", 9, "must be like \"115200,8N1\""),
    (8, "guest = \"vm1\"\nparams = \"9600,7E1\"", 9, "for \"/dev/null\": 7 data bits carry no whole byte"),
    (8, "guest = \"vm1\"\nmode = \"0660\"", 9, "only a unix-listen channel"),
    (8, "guest = \"vm1\"\nlisten = 1229", 9, "only for tcp and vsock"),
    (8, "guest = \"vm1\"\nkey_file = \"/k\"", 9, "channel.key_file"),
    (8, "guest = \"vm1\"\ngroup = \"g\"", 9, "channel.group"),
    (8, "guest = \"vm1\"\nguest = \"vm2\"", 9, "duplicate key"),
    (
        8,
        "guest = \"vm1\"\n[[channel]]\nkind = \"tty\"\npath = \"/dev/null\"\nguest = \"vm2\"",
        9,
        "line 5 has a channel",
    ),
    (8, "guest = \"vm1\"\nhash = \"sha256\"", 9, "channel.hash"),
    (10, "", 9, "missing field `name`"),
    (11, "", 9, "missing field `members`"),
    (11, "members = [\"vm1\", \"vm1\"]", 11, "names \"vm1\" twice"),
    (11, "members = [\"vm1\", \"\"]", 11, "is no guest's name"),
    (11, "members = [\"vm1\", \"vm2\"]\nactions = [\"off\", \"fence\"]", 12, "is none of"),
    (11, "members = [\"vm1\", \"vm2\"]\nbudget_per_minute = 0", 12, "must be 1 to 100000"),
    (11, "members = [\"vm1\", \"vm2\"]\n[[group]]\nname = \"g\"\nmembers = [\"a\", \"b\"]", 13, "line 10 has a group"),
    (12, "[records]\npath = \"records\"", 13, "must begin with"),
    (12, "[records]\npath = \"/dev\"", 13, "is a folder"),
    (13, "[control]\njournal = \"journal\"", 14, "must begin with"),
    (13, "[control]\njournal = \"/proc/version\"", 14, "is no folder"),
    (13, "[control]\nstate = \"state\"", 14, "must begin with"),
    (13, "[control]\nstate = \"/proc/version\"", 14, "is no folder"),
    (13, "[control]\nstate = \"/run/fencewire/journal\"", 14, "are one folder"),
    (13, "[control]\njournal = \"/var/lib/fencewire/\"", 14, "are one folder"),
    (14, "[discover]\ndirectory = \"run\"", 15, "must begin with"),
    (14, "[discover]\ndirectory = \"/run/../etc\"", 15, "have no \"..\""),
    (14, "[discover]\ndirectory = \"/\"", 15, "not be \"/\" itself"),
    (14, "[discover]\ndirectory = \"/etc/passwd\"", 15, "is no folder"),
    (14, "[discover]\nvirtio_name = \"a\\nb\"", 15, "no port has such a name"),
    (14, "[discover]\nowners = [\"root\", \"nobody-at-all\"]", 15, "no user \"nobody-at-all\""),
    (14, "[discover]\nname = \"a\"", 15, "unknown field `name`"),
    (14, "[metrics]", 14, "unknown field `metrics`"),
    (14, "= 1", 14, ""),
];

#[test]
fn whatever_is_wrong_is_an_error_at_its_line() {
    for (line, text, wrong, part) in ERRORS {
        let (config, findings) = with(*line, text);
        assert!(config.is_none(), "{text} at {line}");
        let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.is_error).collect();
        let said = errors.iter().any(|finding| finding.line == *wrong && finding.text.contains(part));
        assert!(said, "{text} at {line}: {errors:#?}");
    }
}

/// The good one with a tcp channel that has these lines, from line 14 on.
fn with_tcp(lines: &str) -> (Option<Config>, Vec<Finding>) {
    with(14, &format!("[[channel]]\nkind = \"tcp\"\n{lines}"))
}

#[test]
fn a_tcp_channel_has_a_key_that_is_a_secret_or_says_that_it_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let key = format!("key_file = {key:?}");
    let whole = "listen = \"[::1]:1229\"\ngroup = \"g\"";
    for good in [
        format!("{whole}\n{key}"),
        format!("{whole}\n{key}\nhash = \"sha512\"\nauth = \"sha512\""),
        format!("{whole}\nhash = \"none-anybody-may-fence\""),
    ] {
        let (config, findings) = with_tcp(&good);
        let channels = config.unwrap_or_else(|| panic!("{good}: {findings:#?}")).channels;
        assert!(matches!(&channels[1], ChannelSpec::Keyed(keyed) if keyed.group == "g"), "{good}");
        assert_eq!(channels[1].to_string(), "tcp [::1]:1229");
        assert_eq!(findings.is_empty(), !good.contains("anybody"), "a warning, and only there: {findings:?}");
    }
    for (bad, line, part) in [
        (format!("group = \"g\"\n{key}"), 14, "without listen"),
        (format!("listen = 1229\ngroup = \"g\"\n{key}"), 16, "an address and a port"),
        (format!("listen = \"host:1229\"\ngroup = \"g\"\n{key}"), 16, "an address and a port"),
        (format!("listen = \"[::1]:1229\"\n{key}"), 14, "without a group"),
        (format!("listen = \"[::1]:1229\"\ngroup = \"h\"\n{key}"), 17, "no [[group]]"),
        (whole.to_owned(), 14, "without a key_file"),
        (format!("{whole}\nkey_file = \"/nowhere/key\""), 18, "cannot be read"),
        (format!("{whole}\n{key}\nhash = \"sha1\""), 19, "can be forged"),
        (format!("{whole}\n{key}\nauth = \"sha1\""), 19, "can be forged"),
        (format!("{whole}\n{key}\nhash = \"none\""), 19, "anybody could fence"),
        (format!("{whole}\n{key}\nauth = \"none\""), 19, "anybody could fence"),
        (format!("{whole}\n{key}\nhash = \"md5\""), 19, "must be"),
        (format!("{whole}\n{key}\nhash = \"none-anybody-may-fence\""), 18, "remove one of the two"),
        (format!("{whole}\nauth = \"sha256\"\nhash = \"none-anybody-may-fence\""), 18, "nothing is proved"),
        (format!("{whole}\n{key}\nguest = \"vm1\""), 19, "a tcp channel has none"),
        (format!("{whole}\n{key}\n[[channel]]\nkind = \"tcp\"\n{whole}\n{key}"), 19, "line 14 has a channel there"),
        (
            format!(
                "{whole}\n{key}\n[[group]]\nname = \"h\"\nmembers = [\"a\", \"b\"]\nclassic = false\n[[channel]]\nkind = \"tcp\"\nlisten = \"[::1]:1\"\ngroup = \"h\"\n{key}"
            ),
            26,
            "may not use the classic wire",
        ),
    ] {
        let (config, findings) = with_tcp(&bad);
        assert!(config.is_none(), "{bad}");
        let said = findings.iter().any(|it| it.is_error && it.line == line && it.text.contains(part));
        assert!(said, "{bad}: {findings:#?}");
    }
}

/// Likewise, for what can be served all the same.
const WARNINGS: &[(usize, &str, usize, &str)] = &[
    (7, "path = \"/dev/not-there\"", 7, "is served when it comes"),
    (8, "guest = \"vm3\"", 5, "is in no group"),
    (11, "members = [\"vm1\"]", 10, "fewer than two members"),
    (11, "members = [\"vm1\", \"xabbax\"]", 11, "cannot carry"),
    (14, "[discover]\ndirectory = \"/run/not-there\"", 15, "when it comes"),
    (11, "members = [\"vm1\", \"vm2\"]\nactions = []", 10, "not even ask for a status"),
    (
        6,
        "kind = \"unix-listen\"\nmode = \"0606\"\npath = \"/run/x\"\nguest = \"vm1\"\n[[channel]]\nkind = \"tty\"",
        7,
        "everybody on this host may ask",
    ),
    (2, "uri = \"qemu:///system\"\ndeadline_ms = 25000", 3, "not below wire.classic_timeout_s = 25"),
    (4, "classic = true\nclassic_timeout_s = 20", 5, "hypervisor.deadline_ms = 20000 is not below"),
    (4, "classic = true\nclassic_timeout_s = 30", 5, "not below the 30 s that an agent waits"),
];

#[test]
fn what_may_be_meant_is_a_warning_at_its_line() {
    for (line, text, wrong, part) in WARNINGS {
        let (config, findings) = with(*line, text);
        assert!(config.is_some(), "{text} at {line}: {findings:#?}");
        let said = findings.iter().any(|finding| finding.line == *wrong && finding.text.contains(part));
        assert!(said, "{text} at {line}: {findings:#?}");
    }
}

#[test]
fn all_errors_are_said_at_once_in_the_order_of_the_lines() {
    let text = GOOD
        .join("\n")
        .replace("qemu:///system", "system")
        .replace("\"/dev/null\"", "\"null\"")
        .replace("\"vm1\", \"vm2\"", "\"vm2\", \"vm2\"");
    let lines: Vec<usize> =
        said_of(&text).1.into_iter().filter(|finding| finding.is_error).map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 7, 11]);
}

#[test]
fn an_empty_file_serves_nobody_and_says_what_it_lacks() {
    let (config, findings) = said_of("");
    assert!(config.is_none());
    for lacks in ["[[hypervisor]]", "[[group]]"] {
        assert!(findings.iter().any(|finding| finding.text.contains(lacks)), "{lacks}");
    }
}

#[test]
fn findings_are_shown_with_file_and_line() {
    let findings = parse(Path::new("/etc/a.toml"), "classic = true\n").findings;
    assert!(findings.to_string().starts_with("/etc/a.toml:1: error: "), "{findings}");
    let findings = parse(Path::new("/etc/a.toml"), "").findings;
    assert!(findings.to_string().starts_with("/etc/a.toml: error: "), "{findings}");
}

#[test]
fn a_file_that_cannot_be_read_or_is_no_text_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(load(&folder.path().join("not-there")).config.is_none());
    assert!(load(folder.path()).config.is_none());
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[wire]\nclassic = true\n# \xff\n").unwrap();
    let loaded = load(&binary);
    assert!(loaded.config.is_none());
    assert_eq!(loaded.findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3]);
}
