//! Answers to wants, as payloads of frames.

use super::message::check_path;
use tdfs_wire::answer::{Answer, Found};
use tdfs_wire::frame::Codec;
use tdfs_wire::{Lsn, check_name};

/// One payload.
pub fn run(bytes: &[u8]) {
    let Ok((answer, bulk)) = Answer::parse(bytes) else { return };
    check_path(&answer.path);
    let frame = answer.frame(Lsn::new(7), bulk, Codec::Stored).expect("within the limits");
    assert_eq!(frame.payload(), bytes, "one reading");
    match &answer.found {
        Found::Gone => assert!(bulk.is_empty()),
        Found::Listing { children, last, .. } => {
            assert!(*last || !children.is_empty(), "a part that says nothing");
            for child in children {
                check_name(child.name.as_bytes()).expect("a name that is none");
                child.meta.check().expect("checked");
            }
            assert!(children.is_sorted_by(|a, b| a.name < b.name));
        }
        Found::Object { meta, stretches, .. } => {
            meta.check().expect("checked");
            let data: u64 = stretches.iter().map(|stretch| stretch.bulk_len()).sum();
            assert_eq!(data, bulk.len() as u64);
        }
    }
}
