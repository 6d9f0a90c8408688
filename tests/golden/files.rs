//! The .hex files: a comment that shows the value, then the bytes in lines of sixteen.

use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Compares `encoded`, which stands for `value`, with the file `name`, and what `decode` makes of the file with
/// `value`.
pub fn check<T: PartialEq + Debug>(name: &str, value: &T, encoded: &[u8], decode: impl Fn(&[u8]) -> T) {
    let path = dir().join(name).with_extension("hex");
    if std::env::var("TDFS_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::create_dir_all(path.parent().expect("in the directory of golden files")).expect("make directory");
        fs::write(&path, text(value, encoded)).expect("write golden file");
    }
    let bytes = bytes(name);
    assert_eq!(lines(encoded), lines(&bytes), "{name}: this program encodes it in another way");
    assert_eq!(decode(&bytes), *value, "{name}: this program decodes it in another way");
}

/// The bytes of the file `name`.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = dir().join(name).with_extension("hex");
    let file = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e} (TDFS_GOLDEN=write makes it)", path.display()));
    parse(&file)
}

/// The names of all files, without `.hex`.
pub fn all() -> Vec<String> {
    let mut names = Vec::new();
    let mut dirs = vec![dir()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).expect("read directory") {
            let path = entry.expect("read directory").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "hex") {
                let path = path.with_extension("");
                let name = path.strip_prefix(dir()).expect("below the directory").to_str();
                names.push(name.expect("ASCII names").to_owned());
            }
        }
    }
    names
}

/// The value in comment lines of about a hundred columns, and the bytes.
fn text(value: &impl Debug, bytes: &[u8]) -> String {
    let mut comment = String::from("#");
    let mut width = 1;
    for word in format!("{value:?}").split(' ') {
        if width + word.len() > 100 {
            comment += "\n#";
            width = 1;
        }
        comment += " ";
        comment += word;
        width += 1 + word.len();
    }
    comment + "\n" + &lines(bytes)
}

fn lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for (at, byte) in line.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(text, "{gap}{byte:02x}").expect("write to a string");
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(str::split_whitespace)
        .map(|digits| u8::from_str_radix(digits, 16).expect("two hexadecimal digits"))
        .collect()
}
