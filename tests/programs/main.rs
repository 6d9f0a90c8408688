//! Real programs in a plain directory and on the mount: what they say is the same, and the replica is equal.
//!
//! Each is a script that says nothing which time or chance decides.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod postgres;
mod web;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::daemon::end_of;
use harness::modes::Mode;
use harness::{TempTree, long_form, require};

/// A whole crate is built, on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// A program, and the Debian package that has it.
type Needed<'a> = &'a [(&'a str, &'a str)];

/// Runs `script` in an empty directory, by itself and on a mount in some modes (in all of them in the long form).
fn check(test: &str, needed: Needed, script: &str) {
    if !needed.iter().all(|(program, package)| require(test, program, package)) {
        return;
    }
    let plain = TempTree::new().unwrap();
    let expected = said(&plain.dir("work").unwrap(), script);
    println!("{expected}");
    assert!(!expected.is_empty(), "it says nothing that could be compared");
    let modes = if long_form() { &Mode::ALL[..] } else { &[Mode::ALL[0], Mode::ALL[3]] };
    for mode in modes {
        println!("{test}: {mode}");
        let cluster = mode.builder(harness::binaries!()).start();
        let work = cluster.mount().join("work");
        std::fs::create_dir(&work).unwrap();
        assert_eq!(said(&work, script), expected, "{test}, {mode}");
        cluster.finish();
    }
}

/// What `script` says in the directory `work`.
fn said(work: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(work).env("HOME", work).env("TZ", "UTC").env("LC_ALL", "C");
    // A cargo that runs this test says where it builds, and what for.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") || name == "RUSTFLAGS" {
            command.env_remove(name);
        }
    }
    for (name, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if let Some(home) = std::env::var_os("HOME").filter(|_| std::env::var_os(name).is_none()) {
            command.env(name, Path::new(&home).join(directory));
        }
    }
    let output = end_of(command, LIMIT).unwrap();
    let (told, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in {}: {}\n{told}\n{words}", work.display(), output.status);
    told.into_owned()
}

#[test]
fn git() {
    let script = r#"
        export GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000"
        git config --global user.name tdfs; git config --global user.email tdfs@localhost
        git config --global gc.auto 0; git config --global init.defaultBranch main
        git config --global safe.directory '*'
        git init -q origin; cd origin
        for round in 1 2 3 4 5 6; do
            for file in $(seq 60); do mkdir -p d$((file % 7)); echo "$round $file" > d$((file % 7))/f$file; done
            chmod +x d1/f1; ln -sf f2 d1/soft; git add -A; git commit -qm "round $round"
        done
        git branch side HEAD~2; cd ..
        git clone -q origin clone; git clone -q --no-hardlinks --bare origin bare; cd clone
        git checkout -q -b side origin/side; echo side > new; git add new; git commit -qm side
        git rebase -q main; git checkout -q main; git merge -q --no-edit side
        echo dirty >> d1/f1; git stash -q; git stash pop -q; git status --porcelain; git checkout -q d1/f1
        git repack -q -a -d; git gc -q --prune=now; git fsck --full --strict --no-progress
        git worktree add -q ../tree HEAD~1; (cd ../tree; git status --porcelain; git rev-parse HEAD)
        git log --format=%H; git cat-file --batch-all-objects --batch-check; git status --porcelain
        git push -q ../bare main; git -C ../bare gc -q; git -C ../bare fsck; git -C ../bare rev-parse main
        find . -path ./.git -prune -o -printf '%P %y %m %s %l\n' | sort"#;
    check("git", &[("git", "git")], script);
}

#[test]
fn cargo() {
    let script = r#"
        cargo new -q --vcs none small; cd small; mkdir -p examples
        for part in $(seq 40); do
            echo "pub fn value() -> u64 { $part }" > src/part$part.rs; echo "pub mod part$part;" >> src/lib.rs
        done
        echo 'fn main() { println!("{}", small::part7::value() + small::part40::value()); }' > src/main.rs
        printf '#[test] fn it() { assert_eq!(small::part3::value(), 3); }' > examples/e.rs
        cargo build -q --offline; target/debug/small
        cargo build -v --offline 2>&1 | grep -c Fresh
        echo '// changed' >> src/part7.rs; cargo build -v --offline 2>&1 | grep -c Compiling
        target/debug/small; cargo test -q --offline --example e 2>&1 | grep passed | sed 's/;.*//'
        cargo clean -q --offline; ls"#;
    check("cargo", &[("cargo", "cargo")], script);
}

/// Copying programs, with all they know of sparse files, links, ACLs and xattrs.
#[test]
fn copies() {
    let script = r#"
        mkdir -p from/d/e; cd from
        seq 20000 > numbers; ln numbers d/link; ln -s ../numbers d/e/soft; mkfifo d/fifo; mknod d/null c 1 3
        truncate -s 3M sparse; printf x | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
        printf '' > 'a name with spaces'; printf new > "$(printf 'b\377\012c')"
        setfattr -n user.note -v words numbers; setfacl -m u:1000:rw d/e; setfacl -d -m g:1000:r d
        chmod 6755 d/link; chmod 1777 d; chown 1000:1001 d/e
        find . -exec touch -h -d '2002-02-02 02:02:02.020202020' {} +; touch -d '2001-02-03 04:05:06.789' numbers
        touch -h -d '1999-01-01' d/e/soft; touch -d '2005-01-01' d; cd ..
        manifest() {
            (cd "$1"; find . -printf '%P %y %m %U %G %s %n %l\n' | sort; find . ! -type l -printf '%P %Y %T@\n' | grep -v '^ ' | sort
             find . -type f -print0 | sort -z | xargs -0 sha256sum; getfattr -Rhd -m - . | sort; getfacl -Rn . | sort
             stat -c '%n %b' sparse)
        }
        touch -d 2010-01-01 from
        mkdir tar; tar -C from --xattrs --xattrs-include='*' --acls --sparse -cf - . | tar -C tar --xattrs --xattrs-include='*' --acls -xpf -
        rsync -aHAXS --devices --specials from/ rsync/; rsync -aHAXi from/ rsync/
        cp -a --reflink=auto from cp; cp -a --reflink=auto --sparse=always from cp-sparse
        cp --sparse=never from/sparse full; cp --sparse=always full holes; cp --reflink=auto full again
        if cp --reflink=always full never 2>/dev/null; then echo reflinked; fi
        stat -c '%n %s %b' full holes again; cmp full from/sparse; cmp holes full; cmp again full
        for copy in from tar rsync cp cp-sparse; do echo "== $copy"; manifest $copy; done
        mv from/d moved; install -m 640 -o 1000 full installed; stat -c '%n %a %u' installed; rm -rf tar; ls -R cp"#;
    let needed =
        [("rsync", "rsync"), ("setfattr", "attr"), ("getfattr", "attr"), ("setfacl", "acl"), ("tar", "tar")];
    check("copies", &needed, script);
}

/// Each journal mode, without and with `SQLite`'s own mapping of the database.
#[test]
fn sqlite() {
    let script = r#"
        rows='WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)'
        for mode in wal delete truncate persist; do for mapped in 0 30000000; do
            db=$mode-$mapped.sqlite
            sql() { sqlite3 -cmd '.timeout 20000' $db "PRAGMA mmap_size=$mapped; PRAGMA synchronous=full; $1"; }
            sql "PRAGMA journal_mode=$mode; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX i ON t(a);"
            for round in 1 2 3 4 5; do
                sql "BEGIN; INSERT INTO t(a) $rows SELECT hex(i * 7919 + $round) FROM n; COMMIT;" > /dev/null &
                sql "BEGIN; UPDATE t SET a = a || 'x' WHERE id % 3 = 0; ROLLBACK;" > /dev/null &
                wait
                sql "DELETE FROM t WHERE id % 5 = $round % 5;" > /dev/null
            done
            sql "SELECT count(*) FROM t; VACUUM; PRAGMA integrity_check;"
        done; done; ls"#;
    check("sqlite", &[("sqlite3", "sqlite3")], script);
}

/// Programs that change their files through writable shared mappings alone.
#[test]
fn mappings() {
    let script = r#"
        rrdtool create load.rrd --start 1700000000 --step 10 DS:load:GAUGE:20:0:U RRA:AVERAGE:0.5:1:600 RRA:MAX:0.5:6:100
        for at in $(seq 1 300); do echo "update load.rrd $((1700000000 + at * 10)):$((at % 17))"; done | rrdtool - > /dev/null
        rrdtool info load.rrd | grep -v 'filename\|cur_row'; rrdtool dump load.rrd | sha256sum
        rrdtool fetch load.rrd MAX -s 1700000000 -e 1700003000 | tail -5
        /usr/bin/python3 -c '
import lmdb
for number, flags in enumerate([dict(), dict(writemap=True), dict(writemap=True, map_async=True)]):
    env = lmdb.open("lmdb%d" % number, map_size=1 << 24, **flags)
    for round in range(40):
        with env.begin(write=True) as change:
            for key in range(50):
                change.put(b"%d-%d" % (round, key), b"v" * (key * 7))
            if round % 3 == 2:
                change.delete(b"%d-%d" % (round - 1, round))
    env.sync(True)
    env.close()
'
        for number in 0 1 2; do mdb_stat lmdb$number; mdb_dump -p lmdb$number | sha256sum; done
        mkdir copied; mdb_copy -c lmdb1 copied; mdb_dump -p copied | sha256sum"#;
    let module = ("/usr/lib/python3/dist-packages/lmdb/__init__.py", "python3-lmdb");
    let needed = [("rrdtool", "rrdtool"), ("mdb_stat", "lmdb-utils"), module];
    check("mappings", &needed, script);
}

#[test]
fn logrotate() {
    let script = r#"
        mkdir logs; chmod 755 . logs
        cat > conf <<END
$PWD/logs/created.log { rotate 3
 create 0640 1000 1000
 compress
 delaycompress
}
$PWD/logs/copied.log { rotate 2
 copytruncate
}
$PWD/logs/old.log { rotate 2
 olddir $PWD/logs/old
 createolddir 0755 root root
 missingok
 nocreate
}
END
        chmod 644 conf
        exec 3>> logs/copied.log
        for round in 1 2 3 4 5; do
            seq $((round * 100)) > logs/created.log; echo "$round old" > logs/old.log; seq $round >&3
            logrotate -f -s state conf
        done
        exec 3>&-
        find logs -type f -printf '%P %m %U %G %s\n' | sort | sed 's/gz.*/gz/'
        for file in logs/created.log.*.gz; do zcat $file | sha256sum; done
        cat logs/copied.log* logs/old/* | sort | uniq -c"#;
    check("logrotate", &[("logrotate", "logrotate")], script);
}

/// Whoever watches the mount is told the same.
#[test]
fn inotify() {
    let script = r#"
        mkdir -p seen/below; cd seen
        inotifywait -q -m --format '%e %w%f' . below > ../told 2> ../words &
        watching=$!
        until [ "$(grep -c inotify /proc/$watching/fdinfo/* | grep -c ':[2-9]')" -gt 0 ]; do sleep 0.05; done
        echo one > file; echo two >> file; cat file > /dev/null; chmod 600 file; mv file moved; ln moved below/link
        truncate -s 1 moved; touch -d 2001-01-01 moved; mkdir new; rmdir new; ln -s nowhere soft; rm moved below/link
        mkfifo fifo; mv below elsewhere; setfattr -n user.a -v b elsewhere; : > last
        until grep -q 'CLOSE.*last' ../told; do sleep 0.05; done
        kill $watching; wait $watching || :; cat ../told"#;
    check("inotify", &[("inotifywait", "inotify-tools"), ("setfattr", "attr")], script);
}
