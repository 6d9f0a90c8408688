//! Frames, as a reader takes them off a connection: header, limits, checksum, LZF.

use tdfs_wire::Frame;
use tdfs_wire::frame::{
    Codec, FRAME_BYTES_MAX, FRAME_BYTES_MAX_HANDSHAKE, FRAME_HEADER_BYTES, FrameHeader, FrameKind,
};

/// A stream of frames. As it is, and once more with each checksum, version and number made right, so that what lies
/// behind these checks is met.
pub fn run(bytes: &[u8]) {
    read(bytes, FRAME_BYTES_MAX_HANDSHAKE, false);
    read(bytes, FRAME_BYTES_MAX, false);
    read(bytes, FRAME_BYTES_MAX, true);
}

fn read(mut bytes: &[u8], bytes_max: usize, mend: bool) {
    for sequence in 0.. {
        let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
        let mut head = *head;
        if mend {
            head[..4].copy_from_slice(b"TDFS");
            head[4..6].copy_from_slice(&tdfs_wire::version::PROTOCOL.to_le_bytes());
            head[16..24].copy_from_slice(&u64::to_le_bytes(sequence));
        }
        let wire_len = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
        let (payload, rest) = rest.split_at(wire_len.min(rest.len()));
        if mend {
            let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..36]), payload);
            head[36..].copy_from_slice(&crc.to_le_bytes());
        }
        let Ok(header) = FrameHeader::parse(head, sequence, bytes_max) else { return };
        assert!(header.wire_len() <= bytes_max, "what is allocated for a payload is bounded");
        if payload.len() < header.wire_len() {
            return;
        }
        let Ok(raw) = header.open(payload.to_vec()) else { return };
        assert!(raw.len() <= bytes_max && raw.len() >= payload.len());
        again(header.kind(), &raw, sequence, (&head, payload));
        bytes = rest;
    }
}

/// What was read, sent again, is read as the same; where it was stored, it is the same bytes.
fn again(kind: FrameKind, raw: &[u8], sequence: u64, (head, payload): (&[u8; FRAME_HEADER_BYTES], &[u8])) {
    if head[7] == 0 {
        let frame = Frame::new(kind, Codec::Stored, raw.to_vec());
        assert_eq!((&frame.header(sequence), frame.payload()), (head, payload));
    }
    let frame = Frame::new(kind, Codec::Lzf, raw.to_vec());
    assert!(frame.payload().len() <= raw.len());
    let header =
        FrameHeader::parse(frame.header(sequence), sequence, FRAME_BYTES_MAX).expect("our own frame");
    assert_eq!(header.kind(), kind);
    assert_eq!(header.open(frame.payload().to_vec()).expect("our own payload"), raw);
}
