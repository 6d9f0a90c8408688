//! Frames and what they carry: round trips, limits, and whatever bytes a peer may send.

use super::*;
use crate::answer::{Answer, Found, Stretch, Want, Wanted};
use crate::log::tests::Rng;
use crate::message::{Ack, Heartbeat, MasterMessage, Message, Report, SlaveMessage};
use crate::object::{Kind, Meta, Xattr};
use crate::op::XattrName;
use crate::{Time, TreePath};

const SEEDS: u64 = 20_000;

fn kinds() -> [FrameKind; 3] {
    [
        FrameKind::Message,
        FrameKind::Records { first: Lsn::new(7), count: 3 },
        FrameKind::Answer { as_of: Lsn::MAX },
    ]
}

fn parse(head: [u8; FRAME_HEADER_BYTES], payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    FrameHeader::parse(head, 5, FRAME_BYTES_MAX)?.open(payload.to_vec())
}

/// Makes the checksum of a frame right whatever it holds.
fn sign(head: &mut [u8; FRAME_HEADER_BYTES], payload: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..36]), payload);
    head[36..40].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn frames_come_back_as_they_went() {
    let text = b"all work and no play ".repeat(50);
    for kind in kinds() {
        for (codec, raw, shrinks) in [
            (Codec::Stored, &text[..], false),
            (Codec::Lzf, &text[..], true),
            (Codec::Lzf, &text[..30], false),
            (Codec::Lzf, &Rng(1).bytes(4096), false),
            (Codec::Stored, &[], false),
        ] {
            let frame = Frame::new(kind, codec, raw.to_vec());
            assert_eq!(frame.payload().len() < raw.len(), shrinks);
            let head = frame.header(5);
            assert_eq!(frame.wire_len(), head.len() + frame.payload().len());
            let header = FrameHeader::parse(head, 5, FRAME_BYTES_MAX).unwrap();
            assert_eq!((header.kind(), header.wire_len()), (kind, frame.payload().len()));
            assert_eq!(header.open(frame.payload().to_vec()).unwrap(), raw);
        }
    }
}

#[test]
fn each_flipped_bit_is_noticed() {
    for kind in kinds() {
        let frame = Frame::new(kind, Codec::Lzf, b"abc".repeat(300));
        let whole = [&frame.header(5), frame.payload()].concat();
        let open = |bytes: &[u8]| {
            let (head, payload) = bytes.split_first_chunk().unwrap();
            parse(*head, payload)
        };
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let error = open(&bytes).unwrap_err();
                assert_eq!(matches!(error, FrameError::Version { .. }), at == 4 || at == 5);
            }
        }
        assert!(open(&whole).is_ok());
        assert!(open(&whole[..whole.len() - 1]).is_err());
    }
}

/// DESIGN section 5: "Peers of another protocol version are refused, both versions named."
#[test]
fn another_version_is_named() {
    let mut head = Frame::new(FrameKind::Message, Codec::Stored, vec![]).header(5);
    head[4..6].copy_from_slice(&77_u16.to_le_bytes());
    let words = parse(head, &[]).unwrap_err().to_string();
    assert!(words.contains("77") && words.contains(&format!("protocol {PROTOCOL}")), "{words}");
}

#[test]
fn a_repeated_or_missing_frame_is_noticed() {
    let frame = Frame::new(FrameKind::Message, Codec::Stored, vec![1]);
    for sequence in [0, 4, 6, u64::MAX] {
        assert!(matches!(parse(frame.header(sequence), &[1]), Err(FrameError::Corrupt(_))));
    }
    assert!(parse(frame.header(5), &[1]).is_ok());
}

#[test]
fn lengths_beyond_the_limit_are_refused_from_the_header() {
    let frame = Frame::new(FrameKind::Message, Codec::Lzf, vec![7; FRAME_BYTES_MAX]);
    let head = frame.header(5);
    assert!(FrameHeader::parse(head, 5, FRAME_BYTES_MAX).is_ok());
    assert!(FrameHeader::parse(head, 5, FRAME_BYTES_MAX_HANDSHAKE).is_err());
    for (at, value) in [(8, u32::MAX), (12, u32::MAX), (8, 5), (12, 0x0100_0000)] {
        let mut head = head;
        head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(matches!(FrameHeader::parse(head, 5, FRAME_BYTES_MAX), Err(FrameError::Corrupt(_))));
    }
}

#[test]
fn kinds_that_contradict_themselves_are_refused() {
    let whole =
        Frame::new(FrameKind::Records { first: Lsn::new(1), count: 1 }, Codec::Stored, vec![]).header(5);
    for (at, bytes) in
        [(6, &[0][..]), (6, &[1]), (6, &[3]), (6, &[4]), (7, &[2]), (7, &[1]), (24, &[0; 8]), (32, &[0; 4])]
    {
        let mut head = whole;
        head[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(FrameHeader::parse(head, 5, FRAME_BYTES_MAX).is_err(), "{bytes:?} at {at}");
    }
}

#[test]
fn random_frames_never_panic() {
    let whole = Frame::new(FrameKind::Message, Codec::Lzf, b"0123456789".repeat(100));
    let mut opened = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let (mut head, mut payload) = (whole.header(5), whole.payload().to_vec());
        for _ in 0..=rng.below(3) {
            match rng.below(4) {
                0 => {
                    let at = rng.below(head.len());
                    head[at] = rng.byte();
                }
                1 => payload = rng.bytes(payload.len()),
                2 => payload.truncate(rng.below(payload.len() + 1)),
                _ if payload.is_empty() => {}
                _ => {
                    let at = rng.below(payload.len());
                    payload[at] ^= 1 << rng.below(8);
                }
            }
        }
        if rng.below(2) == 0 {
            let len = u32::try_from(payload.len()).unwrap();
            head[12..16].copy_from_slice(&len.to_le_bytes());
        }
        sign(&mut head, &payload);
        if let Ok(raw) = parse(head, &payload) {
            assert_eq!(raw.len(), u32_at(&head, 8) as usize, "seed {seed}");
            opened += 1;
        }
    }
    assert!(opened > 100, "only {opened} of {SEEDS} were frames: the mutations are too wild");
}

fn answers() -> [(Answer, Vec<u8>); 3] {
    let path = TreePath::new(*b"a/b").unwrap();
    let xattr = Xattr { name: XattrName::new(*b"user.x").unwrap(), value: vec![1, 2] };
    let meta = Meta {
        kind: Kind::Symlink(b"target".to_vec()),
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Time { sec: 3, nsec: 4 },
        size: 5,
        xattrs: vec![xattr],
    };
    let stretches = vec![Stretch::Same(1), Stretch::Hole(2), Stretch::Data(3)];
    let found = Found::Object { meta: meta.clone(), ino: 1, links: 2, stretches };
    let meta = Meta { kind: Kind::Directory, ..meta };
    [
        (Answer { id: 1, path: path.clone(), found: Found::Gone }, vec![]),
        (Answer { id: 2, path: path.clone(), found }, vec![9; 3]),
        (Answer { id: 3, path, found: Found::Listing { meta, children: vec![], last: true } }, vec![]),
    ]
}

fn payload(frame: &Frame) -> Vec<u8> {
    parse(frame.header(5), frame.payload()).unwrap()
}

#[test]
fn answers_come_back_as_they_went() {
    for (answer, bulk) in answers() {
        let payload = payload(&answer.frame(Lsn::new(4), &bulk, Codec::Stored).unwrap());
        assert_eq!(Answer::parse(&payload).unwrap(), (answer, &bulk[..]));
        for len in 0..payload.len() {
            assert!(Answer::parse(&payload[..len]).is_err());
        }
        assert!(Answer::parse(&[&payload[..], &[0]].concat()).is_err());
    }
}

/// Random damage to a payload: no panic; what is accepted is what would be read of what is sent of it.
fn damage<T: PartialEq + std::fmt::Debug>(
    whole: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
) {
    for seed in 0..SEEDS / 10 {
        let mut rng = Rng(seed);
        let mut bytes = whole.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = rng.byte(),
                1 => bytes[at] = [0, 1, 0xff][rng.below(3)],
                _ => {
                    let end = bytes.len().min(at + 8);
                    let claim = [u64::MAX, 1 << 60, 1 << 32, 1 << 20][rng.below(4)].to_le_bytes();
                    bytes[at..end].copy_from_slice(&claim[..end - at]);
                }
            }
        }
        if let Some(value) = read(&bytes) {
            assert_eq!(read(&write(&value)), Some(value), "seed {seed}");
        }
    }
}

#[test]
fn random_answers_never_panic() {
    for (answer, bulk) in answers() {
        let whole = payload(&answer.frame(Lsn::new(4), &bulk, Codec::Stored).unwrap());
        damage(
            &whole,
            |bytes| Answer::parse(bytes).ok().map(|(answer, bulk)| (answer, bulk.to_vec())),
            |(answer, bulk)| payload(&answer.frame(Lsn::new(4), bulk, Codec::Stored).unwrap()),
        );
    }
}

#[test]
fn random_messages_never_panic() {
    let heartbeat = Heartbeat { head: Lsn::new(1), durable: Lsn::new(2), time_ns: -3 };
    for message in [MasterMessage::Heartbeat(heartbeat), MasterMessage::Refuse("no".into())] {
        let whole = payload(&message.frame().unwrap());
        assert_eq!(MasterMessage::parse(&whole).unwrap(), message);
        damage(&whole, |b| MasterMessage::parse(b).ok(), |m| payload(&m.frame().unwrap()));
    }
    let report = Report { stalled: Some("disk full".into()), ..Report::default() };
    let what = Wanted::Object { offset: 0, hashes: vec![[1; 32]; 2] };
    for message in [
        SlaveMessage::Ack(Ack::default()),
        SlaveMessage::Report(report),
        SlaveMessage::Want(Want { id: 1, path: TreePath::root(), what }),
    ] {
        let whole = payload(&message.frame().unwrap());
        assert_eq!(SlaveMessage::parse(&whole).unwrap(), message);
        damage(&whole, |b| SlaveMessage::parse(b).ok(), |m| payload(&m.frame().unwrap()));
    }
}
