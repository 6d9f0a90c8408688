//! Who has no key that was allowed: bounds of bytes, time and number, and an established stream that goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::eventually;
use rustix::net::{AddressFamily, SocketType};

use crate::{SOON, assert_works, cluster, count};

/// tdfs-slave(8): "Before its key was proven and looked up, a peer can send 64 KiB and stay 10 s".
const STAY: Duration = Duration::from_secs(10);

/// A connection from 127.0.0.`from`.
fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// True once the other side has closed it, within what a read may take.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return true,
            Err(e) => {
                println!("{:?} is open: {e}", stream.local_addr());
                return false;
            }
        }
    }
}

/// A record that begins a handshake message and does not end it.
fn begun_handshake() -> Vec<u8> {
    [&[22, 3, 1, 0x10, 0][..], &[1, 0, 0xff, 0xf0], &[3; 0x1000 - 4]].concat()
}

/// A peer that says nothing, that stops in the middle of the handshake, that never ends it, that speaks something else.
#[test]
fn peers_that_prove_nothing_are_sent_away() {
    let mut cluster = cluster().expect_log("wants TLS").start();
    assert_works(&cluster, "first");
    let address = cluster.slaves[0].address.parse().unwrap();
    let began = Instant::now();
    let silent = connect(2, address);
    let mut stopped = connect(3, address);
    stopped.write_all(&begun_handshake()[..700]).unwrap();
    let mut endless = connect(4, address);
    for _ in 0..32 {
        // It may be gone in the middle.
        let _ = endless.write_all(&begun_handshake());
    }
    assert!(is_closed(&endless) && began.elapsed() < STAY, "64 KiB, not 10 s");
    let mut web = connect(5, address);
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(is_closed(&web));
    assert_works(&cluster, "second");
    assert!(is_closed(&silent) && is_closed(&stopped));
    let stayed = began.elapsed();
    assert!(stayed > STAY - Duration::from_secs(1) && stayed < STAY * 2, "{stayed:?}");
    assert_eq!(cluster.slaves[0].process().fd_count(), fds_of_a_quiet_slave(&mut cluster));
    cluster.finish();
}

fn fds_of_a_quiet_slave(cluster: &mut harness::Cluster) -> usize {
    std::thread::sleep(Duration::from_secs(1));
    cluster.slaves[0].process().fd_count()
}

/// "64 such peers are kept at once, 8 of one address, and above that the oldest goes. None of them disturbs the master
/// that is connected" - nor one that connects.
#[test]
fn a_crowd_of_strangers_disturbs_nobody() {
    let mut cluster = cluster().start();
    assert_works(&cluster, "first");
    let address = cluster.slaves[0].address.parse().unwrap();
    let quiet = cluster.slaves[0].process().fd_count();
    let crowd: Vec<TcpStream> =
        (0..600).map(|n| connect(u8::try_from(n % 40).unwrap() + 2, address)).collect();
    let one: Vec<TcpStream> = (0..40).map(|_| connect(99, address)).collect();
    for stream in crowd.iter().chain(&one) {
        let _ = (&mut &*stream).write_all(&begun_handshake()[..100]);
    }
    eventually(SOON, "the oldest have gone", || cluster.slaves[0].process().fd_count() <= quiet + 64 + 8);
    assert_eq!(cluster.slave_status(0).state, "streaming");
    assert_works(&cluster, "second");
    // The first of one address went, its last 8 are there.
    assert!(is_closed(&one[0]) && is_closed(&one[31]));
    one[39].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(!is_closed(&one[39]));
    cluster.master.stop();
    cluster.start_master();
    assert_works(&cluster, "a new connection gets in");
    drop((crowd, one));
    cluster.finish();
}

/// What a master sent once, sent again by somebody who has recorded it: no connection comes of it.
#[test]
fn replayed_bytes() {
    let mut cluster = cluster().start();
    assert_works(&cluster, "first");
    let slave: SocketAddr = cluster.slaves[0].address.parse().unwrap();
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let recorded: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (recording, address) = (Arc::clone(&recorded), tap.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        while let Ok((client, _)) = tap.accept() {
            let server = TcpStream::connect(slave).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (recording, mut client, mut server) = (Arc::clone(&recording), client, server);
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(got @ 1..) = client.read(&mut bytes) {
                    recording.lock().unwrap().extend(&bytes[..got]);
                    if server.write_all(&bytes[..got]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    cluster.master.stop();
    let direct = cluster.slaves[0].address.clone();
    cluster.master.replace_arg(&direct, &address);
    cluster.start_master();
    std::fs::write(cluster.mount().join("second"), b"recorded").unwrap();
    cluster.wait();
    cluster.master.stop();
    let recorded = recorded.lock().unwrap().clone();
    assert!(recorded.len() > 1000, "{} bytes", recorded.len());
    let log = cluster.slaves[0].process().log().to_owned();
    let before = count(&log, "after record");
    for end in [recorded.len(), recorded.len() / 2, 400] {
        let mut thief = connect(7, slave);
        let _ = thief.write_all(&recorded[..end]);
        assert!(is_closed(&thief));
    }
    assert_eq!(count(&log, "after record"), before, "no stream began");
    cluster.start_master();
    assert_works(&cluster, "third");
    cluster.finish();
}
