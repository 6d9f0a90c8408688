//! Real files to work on: what cargo has unpacked on this machine, and made-up ones where that is not enough.

use std::fs;
use std::path::{Path, PathBuf};

/// Copies (or makes) `count` files into `dir/files`.
pub fn plant(dir: &Path, count: usize) {
    let root = dir.join("files");
    fs::create_dir_all(&root).unwrap();
    let mut done = 0;
    for file in registry_files(count) {
        let below = file.1.to_owned();
        let to = root.join(below);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file.0, to).unwrap();
        done += 1;
    }
    let mut rng = harness::Rng::new(count as u64);
    for number in done..count {
        let parent = root.join(format!("made/{}/{}", number % 17, number % 101));
        fs::create_dir_all(&parent).unwrap();
        let len = rng.index(20_000);
        fs::write(parent.join(format!("file{number}.txt")), rng.bytes(len)).unwrap();
    }
}

/// Up to `count` files of cargo's registry, with their paths below it.
fn registry_files(count: usize) -> Vec<(PathBuf, PathBuf)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let Some(registry) = home.map(|home| home.join("registry/src")) else { return Vec::new() };
    let mut found = Vec::new();
    let mut directories = vec![registry.clone()];
    while let Some(directory) = directories.pop() {
        let mut inside: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().collect();
        inside.sort_by_key(fs::DirEntry::file_name);
        for object in inside {
            let path = object.path();
            match object.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_file() && found.len() < count => {
                    // Without the name of the index, which differs between machines.
                    let below = path.strip_prefix(&registry).unwrap().components().skip(1).collect();
                    found.push((path, below));
                }
                _ => {}
            }
        }
        if found.len() == count {
            break;
        }
    }
    found
}
