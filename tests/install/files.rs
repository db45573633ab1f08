//! The files that `make install` puts there and `make uninstall` takes away.

use super::{SLOW, make, make_well, repository, variable};
use fencewire_tests::process::{ours, run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What is for the host, and mode.
const HOST: [(&str, u32); 5] = [
    ("etc/fencewire/fencewired.toml.example", 0o644),
    ("usr/local/lib/systemd/system/fencewired.service", 0o644),
    ("usr/local/lib/sysusers.d/fencewire.conf", 0o644),
    ("usr/local/lib/tmpfiles.d/fencewire.conf", 0o644),
    ("usr/local/sbin/fencewired", 0o755),
];

/// What is for a guest.
const AGENT: [(&str, u32); 2] =
    [("usr/local/lib/udev/rules.d/60-fence-wire.rules", 0o644), ("usr/local/sbin/fence_wire", 0o755)];

/// Licences and documentation, which go with both.
fn both() -> BTreeMap<String, u32> {
    let of = |folder: &str| {
        let entries = fs::read_dir(repository().join(folder)).expect("a folder of the repository");
        let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("our names are UTF-8");
        entries.map(|entry| name(entry.expect("an entry"))).collect::<Vec<_>>()
    };
    let documents = of("docs").into_iter().filter(|name| is_markdown(name)).map(|name| format!("docs/{name}"));
    let top = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"].map(str::to_owned);
    let path = |name| (format!("usr/local/share/doc/fencewire/{name}"), 0o644);
    documents.chain(top).map(path).collect()
}

fn is_markdown(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}

fn expected(lists: &[&[(&str, u32)]]) -> BTreeMap<String, u32> {
    let named = lists.iter().copied().flatten().map(|(path, mode)| ((*path).to_owned(), *mode));
    both().into_iter().chain(named).collect()
}

/// The files below a folder, and their modes. Says that each folder on the way can be entered by everybody.
fn found(root: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let mode = fs::symlink_metadata(&path).expect("what was just listed").permissions().mode() & 0o7777;
            if path.is_dir() {
                assert_eq!(mode, 0o755, "{}", path.display());
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it is below").to_str().expect("our names are UTF-8");
                files.insert(name.to_owned(), mode);
            }
        }
    }
    files
}

#[test]
fn each_file_is_put_where_it_belongs_and_all_of_them_are_taken_away() {
    for (goal, expected) in [
        ("install", expected(&[&HOST, &AGENT])),
        ("install-host", expected(&[&HOST])),
        ("install-agent", expected(&[&AGENT])),
    ] {
        let folder = tempfile::tempdir().expect("a private folder");
        let root = folder.path().join("root");
        let destination = variable("DESTDIR", &root);
        make_well([goal, &destination]);
        assert_eq!(found(&root), expected, "make {goal}");
        make_well(["uninstall", &destination]);
        assert_eq!(found(&root), BTreeMap::new(), "make uninstall after make {goal}");
        for ours in ["etc/fencewire", "usr/local/share/doc/fencewire"] {
            assert!(!root.join(ours).exists(), "{ours} is left after make {goal}");
        }
    }
}

#[test]
fn what_is_put_there_is_what_was_built() {
    let folder = tempfile::tempdir().expect("a private folder");
    let destination = variable("DESTDIR", folder.path());
    make_well(["install", &destination]);
    for name in ["fencewired", "fence_wire"] {
        let installed = fs::read(folder.path().join("usr/local/sbin").join(name)).expect("an installed program");
        assert!(installed == fs::read(super::programs().join(name)).expect("a program"), "{name}");
    }
}

#[test]
fn what_is_the_operators_is_neither_overwritten_nor_removed() {
    let folder = tempfile::tempdir().expect("a private folder");
    let root = folder.path();
    let theirs = ["etc/fencewire/fencewired.toml", "usr/local/sbin/fence_other", "usr/local/share/doc/fencewire/notes"];
    for path in theirs {
        fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("a folder");
        fs::write(root.join(path), "the operator's").expect("a file");
    }
    let example = root.join("etc/fencewire/fencewired.toml.example");
    fs::write(&example, "of an earlier version").expect("a file");
    let destination = variable("DESTDIR", root);
    make_well(["install", &destination]);
    // The example is documentation: that of the version which is installed.
    assert_ne!(fs::read_to_string(&example).expect("an example"), "of an earlier version");
    make_well(["install", &destination]);
    make_well(["uninstall", &destination]);
    assert_eq!(found(root).into_keys().collect::<Vec<_>>(), theirs);
    for path in theirs {
        assert_eq!(fs::read_to_string(root.join(path)).expect("it is there"), "the operator's", "{path}");
    }
}

#[test]
fn each_place_can_be_named_and_the_unit_knows_it() {
    let folder = tempfile::tempdir().expect("a private folder");
    let root = folder.path();
    let named = ["PREFIX=/usr", "SBINDIR=/opt/sbin", "SYSCONFDIR=/opt/etc", "UNITDIR=/opt/unit"];
    let destination = variable("DESTDIR", root);
    make_well(["install", &destination].into_iter().chain(named));
    let files = found(root);
    for path in [
        "opt/sbin/fencewired",
        "opt/sbin/fence_wire",
        "opt/etc/fencewire/fencewired.toml.example",
        "usr/lib/udev/rules.d/60-fence-wire.rules",
        "usr/share/doc/fencewire/LICENSE-MIT",
    ] {
        assert!(files.contains_key(path), "{path} is missing: {files:#?}");
    }
    assert!(!files.keys().any(|path| path.contains("local")), "{files:#?}");
    let unit = fs::read_to_string(root.join("opt/unit/fencewired.service")).expect("the unit");
    let start = unit.lines().find(|line| line.starts_with("ExecStart="));
    assert_eq!(start, Some("ExecStart=/opt/sbin/fencewired --config /opt/etc/fencewire/fencewired.toml"));
    assert!(unit.contains("file:/usr/share/doc/fencewire/docs/operating.md"), "{unit}");
    assert!(
        !unit.lines().any(|line| !line.starts_with('#') && line.contains("@S")),
        "a name was not filled in: {unit}"
    );
    assert!(!unit.contains(root.to_str().expect("our names are UTF-8")), "DESTDIR is in the unit: {unit}");
    make_well(["uninstall", &destination].into_iter().chain(named));
    assert_eq!(found(root), BTreeMap::new());
}

#[test]
fn what_was_not_built_is_not_installed_and_a_sentence_says_so() {
    let folder = tempfile::tempdir().expect("a private folder");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let (destination, programs) = (variable("DESTDIR", folder.path()), variable("FENCEWIRE_PROGRAMS", &empty));
    let finished = make(["install", &destination, &programs]);
    assert_ne!(finished.code, Some(0));
    let sentence = format!("{}/fencewired is missing: run make build", empty.display());
    assert!(finished.stderr.contains(&sentence), "{}", finished.stderr);
    assert_eq!(found(folder.path()), BTreeMap::new());
}

#[test]
fn make_help_knows_them() {
    let help = make(["help"]).stdout;
    for goal in ["install", "install-host", "install-agent", "uninstall"] {
        let is_named = |line: &str| line.split_whitespace().nth(1) == Some(goal);
        assert!(help.lines().any(is_named), "{goal} is not in make help:\n{help}");
    }
}

#[test]
fn the_example_can_be_served() {
    let example = repository().join("host/dist/fencewired.toml.example");
    let text = fs::read_to_string(example).expect("the example");
    let folder = tempfile::tempdir().expect("a private folder");
    let file = folder.path().join("fencewired.toml");
    // Not this machine's libvirt, if it has one.
    fs::write(&file, text.replace("qemu:///system", "test:///default")).expect("a configuration");
    let finished = run(Command::new(ours("fencewired")).arg("check").arg("--config").arg(&file), SLOW);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("can be served (0 [[channel]], 1 [[group]])"), "{}", finished.stdout);
}
