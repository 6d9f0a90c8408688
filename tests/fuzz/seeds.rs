//! The seeds of each target, made from the golden files of the layouts.

use crate::files;

/// The seeds of the target `name`.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "frame" => with_all_together(golden("frame/")),
        "message" => prefixed(0, golden("master/")).chain(prefixed(1, golden("slave/"))).collect(),
        "record" => with_all_together(golden("op/")),
        "answer" => golden("answer/"),
        "segment" => golden("log/segment"),
        "handshake" => slave_scripts().into_iter().chain(master_scripts()).collect(),
        other => panic!("the target {other} has no seeds"),
    }
}

fn golden(prefix: &str) -> Vec<Vec<u8>> {
    let mut names: Vec<String> = files::all().into_iter().filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names.iter().map(|name| files::bytes(name)).collect()
}

fn with_all_together(mut seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    seeds.push(seeds.concat());
    seeds
}

fn prefixed(byte: u8, seeds: Vec<Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    seeds.into_iter().map(move |seed| [vec![byte], seed].concat())
}

/// One step of a script that has a string.
fn step(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short string");
    [&[kind], &len.to_le_bytes()[..], bytes].concat()
}

/// A master that greets, begins, and then says one thing more.
fn slave_scripts() -> Vec<Vec<u8>> {
    let (hello, answer) = (files::bytes("master/hello"), files::bytes("answer/object"));
    let taken = [5, 9, 0, 1, 0];
    let records = [&[3][..], &79u64.to_le_bytes(), &[4, 0, 1]].concat();
    let answered = [&[4][..], &70u64.to_le_bytes(), &step(0, &answer)[1..]].concat();
    let told =
        [&[7][..], &160u64.to_le_bytes(), &[8], &158u64.to_le_bytes(), &[9, 3, 0, 15, 60, 12]].concat();
    let mut scripts = Vec::new();
    for begin in golden("master/begin") {
        for message in golden("master/") {
            let begun = [&[0, 0][..], &step(0, &hello), &taken, &[12], &step(0, &begin), &[6, 1]].concat();
            scripts
                .push([begun, step(0, &message), records.clone(), answered.clone(), told.clone()].concat());
        }
    }
    scripts
}

/// A slave that welcomes, and then says one thing more.
fn master_scripts() -> Vec<Vec<u8>> {
    let mut scripts = Vec::new();
    for welcome in golden("slave/welcome") {
        for message in golden("slave/") {
            let begun = [&[1, 0, 15, 0, 5, 9, 6, 99, 0][..], &step(0, &welcome), &[9, 9, 7, 5, 9]].concat();
            let ticked = [15, 60, 9, 6, 3, 0, 9, 7, 1, 9, 8, 1, 9, 9];
            scripts.push([begun, step(0, &message), ticked.to_vec()].concat());
        }
    }
    scripts
}
