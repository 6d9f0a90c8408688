//! What must not be readable: the key, state directories, the control socket, core files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use harness::cluster::key_of;
use harness::daemon::run_to_end;
use harness::{Caller, TempTree};

use crate::{SOON, assert_works, binaries, cluster};

/// SECURITY.md: "state directories are 0700, files in them 0600".
#[test]
fn state_is_for_its_owner_only() {
    let mut cluster = cluster().network(1).embedded().start();
    assert_works(&cluster, "first");
    let slave = cluster.slaves[0].state.clone();
    assert_private(&cluster.paths.state);
    assert_private(&slave);
    for (name, directory) in
        [("key", &cluster.paths.state), ("key", &slave), ("known_slaves", &cluster.paths.state)]
    {
        assert!(directory.join(name).exists(), "{name}");
    }
    cluster.master.kill();
    cluster.slaves[0].process().kill();
    assert_private(&cluster.paths.state);
    assert_private(&slave);
    cluster.start_slave(0);
    cluster.start_master();
    cluster.finish();
}

fn assert_private(directory: &Path) {
    let mode = fs::symlink_metadata(directory).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o700, "{}", directory.display());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            assert_private(&path);
        } else {
            assert_eq!(found.mode() & 0o7777, 0o600, "{}", path.display());
        }
    }
}

/// "the control socket answers its owner and root only" - also where the way to it is open.
#[test]
fn the_control_socket_answers_its_owner_only() {
    let cluster = cluster().start();
    assert_works(&cluster, "first");
    let socket = cluster.paths.state.join("control.sock");
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(&cluster.paths.state, 0o755);
    open(socket.parent().unwrap().parent().unwrap(), 0o755);
    open(cluster.tree.path(), 0o755);
    open(&socket, 0o666);
    let answer = Caller::nobody().run(|| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let mut answer = Vec::new();
        let _ = stream.write_all(b"{\"command\":\"status\"}\n");
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert!(cluster.try_status().is_ok(), "root is answered");
    cluster.finish();
}

/// tdfs(8): "The secret key is shown nowhere, and tdfs leaves no core files."
#[test]
fn the_key_is_shown_nowhere() {
    let mut cluster = cluster().slave_flag("--nagle").start();
    assert_works(&cluster, "first");
    for (state, daemon) in [
        (cluster.paths.state.clone(), cluster.master.pid()),
        (cluster.slaves[0].state.clone(), cluster.slaves[0].process().pid()),
    ] {
        let proc =
            |name: &str| fs::read_to_string(format!("/proc/{}/{name}", daemon.as_raw_nonzero())).unwrap();
        let limits = proc("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["1", "1"], "{core}");
        let pem = fs::read_to_string(state.join("key")).unwrap();
        let secret = pem.lines().nth(1).unwrap();
        assert_eq!(secret.len(), 64);
        let said =
            [cluster.run("status", &["--json"]).1, cluster.run_slave(0, "status", &["--json"]).1].concat();
        let logs = [cluster.master.log(), cluster.slaves[0].daemon.as_ref().unwrap().log()];
        let logs = logs.map(|log| fs::read_to_string(log).unwrap()).concat();
        for text in [said, logs, proc("cmdline"), proc("environ")] {
            assert!(!text.contains(&secret[..24]) && !text.contains("PRIVATE"));
        }
    }
    cluster.finish();
}

/// A key that is damaged, or that others can read, is refused in one sentence, by both daemons and their commands, and
/// stays as it is.
#[test]
fn a_bad_key_is_refused_and_kept() {
    let tree = TempTree::new().unwrap();
    let (dir, replica) = (tree.dir("a").unwrap(), tree.dir("b").unwrap());
    let key = |side: &str| tree.path().join(format!("state-{side}")).join("key");
    let run = |side: &str, word: &[&str]| {
        let (program, served) =
            if side == "slave" { (binaries().slave, &replica) } else { (binaries().tdfs, &dir) };
        let mut args: Vec<std::ffi::OsString> = word.iter().map(Into::into).collect();
        args.extend([
            "-m".into(),
            served.into(),
            "--state".into(),
            tree.path().join(format!("state-{side}")).into(),
        ]);
        if word.is_empty() {
            let more = if side == "slave" { ["-l", "127.0.0.1:0"] } else { ["-c", "127.0.0.1:1"] };
            args.extend(more.map(Into::into));
        }
        run_to_end(program, &args, SOON).unwrap()
    };
    for side in ["master", "slave"] {
        let program = if side == "slave" { binaries().slave } else { binaries().tdfs };
        key_of(program, if side == "slave" { &replica } else { &dir }, key(side).parent().unwrap()).unwrap();
        let whole = fs::read(key(side)).unwrap();
        let mut flipped = whole.clone();
        flipped[60] ^= 1;
        let cut = whole[..40].to_vec();
        for (content, mode, words) in
            [(&flipped, 0o600, "is damaged"), (&cut, 0o600, "is damaged"), (&whole, 0o644, "chmod 600")]
        {
            fs::write(key(side), content).unwrap();
            fs::set_permissions(key(side), Permissions::from_mode(mode)).unwrap();
            for word in [&["key"][..], &[]] {
                let output = run(side, word);
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{said}");
                assert!(said.contains(words) && said.contains("/key") && said.lines().count() == 1, "{said}");
            }
            assert_eq!(&fs::read(key(side)).unwrap(), content);
        }
        fs::set_permissions(key(side), Permissions::from_mode(0o600)).unwrap();
        fs::write(key(side), &whole).unwrap();
        fs::set_permissions(key(side).parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        let said = String::from_utf8_lossy(&run(side, &[]).stderr).into_owned();
        assert!(said.contains("chmod 700"), "{said}");
    }
}

/// The fingerprint is what other tools say, too.
#[test]
fn openssl_names_the_same_key() {
    if !harness::require("openssl_names_the_same_key", "openssl", "openssl") {
        return;
    }
    let tree = TempTree::new().unwrap();
    let (dir, state) = (tree.dir("a").unwrap(), tree.path().join("state"));
    let ours = key_of(binaries().tdfs, &dir, &state).unwrap();
    // PKCS#8 of version 2 has the public key at its end, which openssl does not read: its DER is put together here.
    let script = format!(
        "(printf '\\060\\052\\060\\005\\006\\003\\053\\145\\160\\003\\041\\000'; grep -v -- ----- {} | base64 -d | tail -c 32) | \
         openssl dgst -sha256 -binary | base64 | tr -d '=\\n'",
        state.join("key").display()
    );
    let output = run_to_end("bash", &["-c".into(), script.into()], SOON).unwrap();
    assert_eq!(format!("SHA256:{}", String::from_utf8_lossy(&output.stdout)), ours);
}
