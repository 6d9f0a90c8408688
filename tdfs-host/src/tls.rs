//! TLS 1.3 with raw public keys, and nothing else of TLS: the two configurations, and what of a peer is proven.
//!
//! The master is the client, the slave the server, both show their key and prove that they have it. Which key is
//! the right one is decided right behind the handshake, by who calls: `ship` on the master (known slaves), `receive`
//! on the slave (allowed masters). What a client signs is never taken for what a server signs (RFC 8446, 4.4.3), so
//! a slave's key proves nothing in a master's role. No certificates, no names, no tickets, no 0-RTT.

mod wire;

use crate::key::{Fingerprint, Key};
use crate::link::{ReadHalf, WriteHalf};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{
    AlertDescription, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme, version,
};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is spoken inside: a later way to put frames on TLS would have another name.
pub const ALPN: &[u8] = b"tdfs/1";
/// Most bytes that a peer may send before it has proven its key.
pub const UNPROVEN_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that may wait to be encrypted or sent.
const BUFFER_BYTES: usize = 512 * 1024;
/// First byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 22;
/// First byte of a plain one: a frame's magic.
const PLAIN: u8 = b'T';

/// A connection whose peer has proven its key.
pub struct Proven {
    /// What comes from it.
    pub reader: ReadHalf,
    /// What goes to it.
    pub writer: WriteHalf,
    /// Its key.
    pub peer: Fingerprint,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer does not speak TLS.
    #[error("it speaks plain TCP")]
    Plain,
    /// It speaks TLS, but no TDFS that this one knows.
    #[error("it speaks another protocol over TLS than {}", String::from_utf8_lossy(ALPN))]
    Protocol,
    /// Anything else, most often that the connection was lost.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// The master's side.
#[derive(Clone)]
pub struct Client(TlsConnector);

/// The slave's side.
#[derive(Clone)]
pub struct Server(TlsAcceptor);

impl Client {
    /// For a master with that key.
    ///
    /// # Panics
    /// When the TLS library was built without what it needs.
    pub fn new(key: &Key) -> Client {
        let verifier = Arc::new(AnyKey::new());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.certified())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Client(TlsConnector::from(Arc::new(config)))
    }

    /// Shows our key to a slave, and has it prove its own.
    ///
    /// # Errors
    /// When the handshake does not come to its end.
    pub async fn connect(&self, stream: TcpStream) -> Result<Proven, TlsError> {
        // Not sent and not looked at: raw keys have no names.
        let name = ServerName::try_from("slave").expect("a name");
        match self.0.connect(name, wire::around(stream)).into_fallible().await {
            Ok(mut stream) => {
                stream.get_mut().0.get_mut().lift();
                stream.get_mut().1.set_buffer_limit(Some(BUFFER_BYTES));
                let peer = proven_peer(stream.get_ref().1)?;
                Ok(Proven::new(stream, peer))
            }
            Err((_, wire)) if wire.get_ref().first() == Some(PLAIN) => Err(TlsError::Plain),
            Err((e, _)) => Err(TlsError::of(e)),
        }
    }
}

impl Server {
    /// For a slave with that key.
    ///
    /// # Panics
    /// When the TLS library was built without what it needs.
    pub fn new(key: &Key) -> Server {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(Arc::new(AnyKey::new()))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.certified())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Server(TlsAcceptor::from(Arc::new(config)))
    }

    /// Shows our key to whoever connected, and has it prove its own. A peer that was told to be plain
    /// ([`speaks_tls`]) is not for this.
    ///
    /// # Errors
    /// When the handshake does not come to its end.
    pub async fn accept(&self, stream: TcpStream) -> Result<Proven, TlsError> {
        let mut stream = self.0.accept(wire::around(stream)).await.map_err(TlsError::of)?;
        stream.get_mut().0.get_mut().lift();
        stream.get_mut().1.set_buffer_limit(Some(BUFFER_BYTES));
        let peer = proven_peer(stream.get_ref().1)?;
        Ok(Proven::new(stream, peer))
    }
}

/// Waits for the first byte of a connection, which stays in it: true if TLS begins with it.
///
/// # Errors
/// When the connection is gone.
pub async fn speaks_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == HANDSHAKE),
    }
}

impl Proven {
    fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static, peer: Fingerprint) -> Proven {
        let (reader, writer) = tokio::io::split(stream);
        Proven { reader: Box::new(reader), writer: Box::new(writer), peer }
    }
}

impl TlsError {
    fn of(e: io::Error) -> TlsError {
        let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match tls {
            Some(
                Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            ) => TlsError::Protocol,
            _ => TlsError::Failed(e),
        }
    }
}

/// The key that the peer has proven to have.
fn proven_peer(connection: &CommonState) -> Result<Fingerprint, TlsError> {
    // A peer that names no protocol at all is not refused by the handshake.
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(TlsError::Protocol);
    }
    match connection.peer_certificates() {
        Some([key]) => Ok(Fingerprint::of(key)),
        _ => Err(io::Error::other("it showed no key").into()),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes every key, and checks that its owner has signed the handshake with it.
#[derive(Debug)]
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyKey {
    fn new() -> AnyKey {
        AnyKey { algorithms: provider().signature_verification_algorithms }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// TLS 1.2 is not spoken.
fn old_version() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken".into()))
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old_version()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old_version()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
