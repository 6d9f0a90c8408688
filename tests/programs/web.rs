//! nginx serves a replica: what a browser keeps of one server it need not fetch again from another.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use harness::cluster::free_address;
use harness::daemon::Daemon;
use harness::modes::Mode;
use harness::{eventually, require};

const PAGES: [&str; 4] = ["index.html", "large.bin", "old.html", "sub/page.html"];

/// A replica's ETags, which nginx makes of mtime and size, are the master's; and so is all that it sends.
#[test]
fn nginx_serves_a_replica_as_the_master() {
    if !require("nginx_serves_a_replica_as_the_master", "nginx", "nginx-light") {
        return;
    }
    for mode in [Mode::ALL[0], Mode::ALL[3]] {
        let cluster = mode.builder(harness::binaries!()).start();
        let site = cluster.mount().to_owned();
        fs::create_dir(site.join("sub")).unwrap();
        for (number, page) in PAGES.iter().enumerate() {
            fs::write(site.join(page), vec![b'a'; number * 1_000_000 + 10]).unwrap();
            fs::set_permissions(site.join(page), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let old = fs::File::options().write(true).open(site.join("old.html")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        drop(old);
        cluster.wait();
        let home = cluster.tree.dir("nginx").unwrap();
        let addresses = [free_address().unwrap(), free_address().unwrap()];
        let roots = [site.as_path(), cluster.slaves[0].replica.as_path()];
        let mut server =
            Daemon::start("nginx", &arguments(&home, addresses, roots), &home.join("log")).unwrap();
        eventually(Duration::from_secs(20), "nginx serves", || {
            assert!(server.is_alive(), "nginx has ended: {}", server.log_tail());
            addresses.iter().all(|address| TcpStream::connect(address).is_ok())
        });
        let asked = || addresses.map(|address| PAGES.map(|page| asked_for(address, page)));
        let [master, replica] = asked();
        assert!(master.iter().all(|page| page.starts_with("HTTP/1.0 200 ") && page.contains("\nETag: ")));
        assert!(master == replica, "the replica's pages are others");
        fs::write(site.join("sub/page.html"), "changed").unwrap();
        cluster.wait();
        let [changed, replica] = asked();
        assert!(changed == replica && changed[3].ends_with("changed") && changed[3] != master[3]);
        assert_eq!(changed[..3], master[..3]);
        server.kill();
        cluster.finish();
    }
}

fn arguments(home: &Path, addresses: [SocketAddr; 2], roots: [&Path; 2]) -> Vec<std::ffi::OsString> {
    let server = |number: usize| {
        let (address, root) = (addresses[number], roots[number].display());
        format!("server {{ listen {address}; location / {{ root {root}; }} }}")
    };
    let text = format!(
        "user root; daemon off; master_process off; pid {home}/pid; error_log stderr;
        events {{ }}
        http {{ access_log off; sendfile on; open_file_cache off; client_body_temp_path {home}/a;
        proxy_temp_path {home}/b; fastcgi_temp_path {home}/c; uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
        {} {} }}",
        server(0),
        server(1),
        home = home.display()
    );
    let file = home.join("conf");
    fs::write(&file, text).unwrap();
    vec!["-c".into(), file.into(), "-p".into(), home.into(), "-e".into(), "stderr".into()]
}

/// The whole answer but for the time of day.
fn asked_for(address: SocketAddr, page: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET /{page} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("Date:")).collect();
    format!("{}\n\n{body}", head.join("\n")).replacen("HTTP/1.1", "HTTP/1.0", 1)
}
