//! Both sides over a socket of this machine: who proves what, and what is refused.

use super::{ALPN, Client, Server, TlsError, UNPROVEN_BYTES_MAX, provider, speaks_tls};
use crate::key::{Fingerprint, Key};
use crate::state::StateDir;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn key() -> Key {
    let dir = tempfile::tempdir().unwrap();
    Key::open(&StateDir::open(dir.path()).unwrap()).unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.unwrap() })
}

/// What the server makes of those bytes.
async fn server_meets(server: &Server, bytes: &[u8]) -> TlsError {
    let (mut client, taken) = pair().await;
    let bytes = bytes.to_vec();
    let send = async {
        // It may be sent away in the middle.
        let _ = client.write_all(&bytes).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    let (met, ()) = tokio::join!(server.accept(taken), send);
    met.err().unwrap()
}

#[test]
fn both_sides_prove_their_keys() {
    run(async {
        let (master, slave) = (key(), key());
        let (client, server) = pair().await;
        let (connector, acceptor) = (Client::new(&master), Server::new(&slave));
        let both = tokio::join!(connector.connect(client), acceptor.accept(server));
        let (Ok(mut ours), Ok(mut theirs)) = both else { panic!("no connection") };
        assert_eq!(ours.peer, slave.fingerprint());
        assert_eq!(theirs.peer, master.fingerprint());
        // More than an unproven peer may send, in both directions.
        let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for (from, to) in [(&mut ours.writer, &mut theirs.reader), (&mut theirs.writer, &mut ours.reader)] {
            let mut got = vec![0; content.len()];
            let send = async {
                from.write_all(&content).await.unwrap();
                from.flush().await.unwrap();
            };
            tokio::join!(send, async { to.read_exact(&mut got).await.unwrap() });
            assert!(got == content);
        }
    });
}

#[test]
fn what_is_no_handshake_ends_within_its_bounds() {
    run(async {
        let server = Server::new(&key());
        // A record of a handshake message that is said to go on for ever.
        let record = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &[7; 0x4000 - 4]].concat();
        let met = server_meets(&server, &record.repeat(20)).await.to_string();
        assert!(met.contains("before a key was proven") || met.contains("message"), "{met}");
        assert!(record.len() as u64 * 20 > UNPROVEN_BYTES_MAX);
        for bytes in [&b""[..], b"\x16", b"GET / HTTP/1.1\r\n\r\n", b"TDFS\x01\x00\x01\x00", &[0; 300]] {
            let met = server_meets(&server, bytes).await;
            assert!(matches!(met, TlsError::Failed(_)), "{met}");
        }
    });
}

/// A connection that was recorded is of no use: the server's random bytes are others.
#[test]
fn a_replayed_handshake_is_refused() {
    run(async {
        let (master, slave) = (Client::new(&key()), Server::new(&key()));
        let (client, mut tapped) = pair().await;
        let (mut onward, server) = pair().await;
        let recorded = async {
            let mut bytes = vec![0; 64 * 1024];
            let (mut filled, mut back) = (0, vec![0; 64 * 1024]);
            loop {
                tokio::select! {
                    got = tapped.read(&mut bytes[filled..]) => {
                        let got = got.unwrap();
                        onward.write_all(&bytes[filled..filled + got]).await.unwrap();
                        filled += got;
                    }
                    got = onward.read(&mut back) => tapped.write_all(&back[..got.unwrap()]).await.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(300)) => break,
                }
            }
            bytes.truncate(filled);
            bytes
        };
        let (ours, theirs, recorded) = tokio::join!(master.connect(client), slave.accept(server), recorded);
        assert!(ours.is_ok() && theirs.is_ok() && recorded.len() > 200);
        let met = server_meets(&slave, &recorded).await;
        assert!(matches!(met, TlsError::Failed(_)), "{met}");
    });
}

#[test]
fn plain_peers_are_recognised() {
    run(async {
        let (client, mut server) = pair().await;
        let client_side = Client::new(&key());
        let plain = async {
            assert!(speaks_tls(&server).await.unwrap());
            server.write_all(b"TDFS, and more of it").await.unwrap();
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        let (met, ()) = tokio::join!(
            async {
                let met = client_side.connect(client).await;
                met.err().unwrap()
            },
            plain
        );
        assert!(matches!(met, TlsError::Plain), "{met}");
        let (mut client, server) = pair().await;
        client.write_all(b"TDFS").await.unwrap();
        assert!(!speaks_tls(&server).await.unwrap());
        let (client, server) = pair().await;
        drop(client);
        assert_eq!(speaks_tls(&server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

/// A client that differs from ours in one thing; None: what the server says to it.
async fn odd_client(change: impl FnOnce(&mut rustls::ClientConfig)) -> Result<Fingerprint, String> {
    let verifier = Arc::new(super::AnyKey::new());
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(
            key().certified(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    change(&mut config);
    let (client, server) = pair().await;
    let connector = Client(tokio_rustls::TlsConnector::from(Arc::new(config)));
    let acceptor = Server::new(&key());
    let (_, met) = tokio::join!(
        async {
            if let Ok(mut proven) = connector.connect(client).await {
                let _ = proven.reader.read(&mut [0]).await;
            }
        },
        async {
            let met = acceptor.accept(server).await;
            met.map(|proven| proven.peer).map_err(|e| e.to_string())
        }
    );
    met
}

/// No key, a key without its secret, another protocol: each ends in the handshake.
#[test]
fn who_proves_no_key_is_refused() {
    #[derive(Debug)]
    struct NoKey;
    impl rustls::client::ResolvesClientCert for NoKey {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
        fn only_raw_public_keys(&self) -> bool {
            true
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    run(async {
        assert!(odd_client(|_| {}).await.is_ok());
        let met = odd_client(|config| config.client_auth_cert_resolver = Arc::new(NoKey)).await;
        assert!(met.is_err(), "no key: {met:?}");
        let (named, signing) = (key(), key());
        let stolen = rustls::sign::CertifiedKey::new(
            named.certified().cert.clone(),
            Arc::clone(&signing.certified().key),
        );
        let resolver = Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::new(stolen)));
        let met = odd_client(|config| config.client_auth_cert_resolver = resolver).await;
        assert!(met.is_err(), "another's key: {met:?}");
        for protocols in [vec![], vec![b"h2".to_vec()]] {
            let met = odd_client(|config| config.alpn_protocols = protocols).await.unwrap_err();
            assert!(met.contains("another protocol"), "{met}");
        }
    });
}
