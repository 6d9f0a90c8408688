//! What lies between TLS and TCP: reads in large pieces, and bounds what an unproven peer may send.

use super::UNPROVEN_BYTES_MAX;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// TLS asks for a few KiB at a time; a system call for each would cost more than the cipher.
const READ_BYTES: usize = 128 * 1024;

/// A TCP connection as TLS uses it.
pub(super) type Wire = BufReader<Limited>;

/// A TCP connection that may bring only so many bytes.
pub(super) struct Limited {
    tcp: TcpStream,
    /// Bytes that may still come; None: any number.
    left: Option<u64>,
    first: Option<u8>,
}

/// Puts what TLS needs around a connection.
pub(super) fn around(tcp: TcpStream) -> Wire {
    let limited = Limited { tcp, left: Some(UNPROVEN_BYTES_MAX), first: None };
    BufReader::with_capacity(READ_BYTES, limited)
}

impl Limited {
    /// The peer has proven its key.
    pub(super) fn lift(&mut self) {
        self.left = None;
    }

    /// The first byte that came.
    pub(super) fn first(&self) -> Option<u8> {
        self.first
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            return Pin::new(&mut self.tcp).poll_read(cx, into);
        };
        if left == 0 {
            let why = format!("more than {UNPROVEN_BYTES_MAX} bytes came before a key was proven");
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.remaining());
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut part))?;
        let got = part.filled().len();
        let first = part.filled().first().copied();
        into.advance(got);
        self.first = self.first.or(first);
        self.left = Some(left - got as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
