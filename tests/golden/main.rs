//! Golden bytes: what leaves the process is, byte for byte, what the .hex files beside this say.
//!
//! For each file a fixed value is encoded and compared with it, and the file is decoded and compared with
//! the value: a round trip alone would not notice that both sides changed. A change of these files is a
//! change of the format: it wants another number in `version.rs`, with its reason, and man/tdfs-wire.5 has to
//! follow. `TDFS_GOLDEN=write` writes them anew. A variant without a file fails (`variants.rs`), and so does
//! a file without a value.

mod answers;
mod files;
mod frames;
mod log;
mod man_page;
mod messages;
mod ops;
mod values;
mod variants;

use std::collections::BTreeSet;

#[test]
fn each_file_belongs_to_a_value() {
    let named = [ops::names(), messages::names(), answers::names(), frames::names(), log::names()].concat();
    let unique: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(unique.len(), named.len(), "two values have one name");
    for file in files::all() {
        assert!(unique.contains(&file), "tests/golden/{file}.hex: no value has this name any more");
    }
}
