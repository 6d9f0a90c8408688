//! Tests of framed connections.

use super::{FrameReader, FrameSender, FrameWriter, GATHERED_BYTES_MAX, LinkError};
use std::sync::Arc;
use std::time::Duration;
use tdfs_wire::frame::{Codec, FrameError};
use tdfs_wire::{Frame, frame::FrameKind};
use tokio::io::AsyncWriteExt;

fn frame(len: usize) -> Frame {
    let raw = (0..len).map(|i| u8::try_from(i / 7 % 251).unwrap()).collect();
    Frame::new(FrameKind::Message, Codec::Lzf, raw)
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn frames_arrive_whole_and_in_order_through_a_narrow_pipe() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(100);
        let sent = tokio::spawn(async move {
            let mut writer = FrameWriter::new(ours);
            for len in [0, 1, 100, 60_000, 3] {
                writer.write(&frame(len)).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(theirs);
        for len in [0, 1, 100, 60_000, 3] {
            // Each call is given up many times on the way: nothing gets lost.
            let payload = loop {
                match tokio::time::timeout(Duration::from_micros(50), reader.read()).await {
                    Ok(read) => break read.unwrap().1,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            assert_eq!(payload.len(), len);
        }
        assert!(matches!(reader.read().await, Err(LinkError::Closed)));
        sent.await.unwrap();
    });
}

#[test]
fn frames_that_are_ready_at_once_go_out_together_and_in_order() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut sender = FrameSender::new(ours);
        let lens = [0, 3, 0, 100];
        for len in lens {
            assert!(sender.has_room());
            sender.start(Arc::new(frame(len)));
        }
        sender.done().await.unwrap();
        let large = Frame::new(FrameKind::Message, Codec::Stored, vec![7; GATHERED_BYTES_MAX]);
        sender.start(Arc::new(large));
        assert!(!sender.has_room());
        drop(sender);
        let mut reader = FrameReader::new(theirs);
        for len in lens {
            assert_eq!(reader.read().await.unwrap().1.len(), len);
        }
        assert!(matches!(reader.read().await, Err(LinkError::Closed)), "a write that nobody waited for");
    });
}

/// A permit that was given when there was room may be used when the write of what is before has begun: by a peer
/// that does not read, that can be much later.
#[test]
fn a_frame_may_follow_while_one_is_being_written() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(100);
        let mut sender = FrameSender::new(ours);
        sender.start(Arc::new(Frame::new(FrameKind::Message, Codec::Stored, vec![7; 10_000])));
        assert!(sender.has_room());
        assert!(tokio::time::timeout(Duration::from_millis(5), sender.done()).await.is_err(), "nobody reads");
        assert!(!sender.has_room() && !sender.is_done());
        sender.start(Arc::new(frame(3)));
        let reading = tokio::spawn(async move {
            let mut reader = FrameReader::new(theirs);
            (reader.read().await.unwrap().1.len(), reader.read().await.unwrap().1.len())
        });
        sender.done().await.unwrap();
        assert!(sender.has_room() && !sender.is_done(), "the second one waits");
        sender.done().await.unwrap();
        assert!(sender.is_done());
        assert_eq!(reading.await.unwrap(), (10_000, 3));
    });
}

#[test]
fn large_frames_are_refused_before_the_handshake() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let raw = vec![7; 70_000];
        let large = Frame::new(FrameKind::Message, Codec::Stored, raw);
        let mut writer = FrameWriter::new(ours);
        writer.write(&large).await.unwrap();
        let mut reader = FrameReader::new(theirs);
        assert!(matches!(reader.read().await, Err(LinkError::Frame(FrameError::Corrupt(_)))));
    });
}

#[test]
fn a_flipped_bit_or_a_cut_ends_it() {
    run(async {
        let one = frame(100);
        let mut bytes = one.header(0).to_vec();
        bytes.extend_from_slice(one.payload());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let mut reader = FrameReader::new(&bad[..]);
            assert!(matches!(reader.read().await, Err(LinkError::Frame(_) | LinkError::CutOff)), "byte {at}");
        }
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        drop(ours);
        assert!(matches!(FrameReader::new(theirs).read().await, Err(LinkError::CutOff)));
    });
}
