//! Content: read, write, append, truncate, copies, opening flags.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{SeekFrom, copy_file_range, seek, sendfile};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn data() {
    run(checks![
        write_and_read_at_any_offset,
        large_writes,
        two_appenders,
        truncate_up_and_down,
        opened_with_truncate,
        sparse_files_and_their_map,
        offsets_beyond_32_bits,
        copy_between_files,
        copy_within_one_file,
        direct,
        synchronous,
        exec_of_a_program,
        sendfile_both_ways,
        read_only_and_write_only,
        vectors,
        many_open_files,
        empty_writes_change_nothing,
    ]);
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    harness::Rng::new(len as u64).bytes(len)
}

fn write_and_read_at_any_offset(dir: &Path) {
    let file = open(&dir.join("file"));
    let mut expected = vec![0; 300_000];
    let mut rng = harness::Rng::new(1);
    for _ in 0..200 {
        let bytes = pattern(1 + rng.index(9_000));
        let at = rng.index(expected.len() - bytes.len());
        expected[at..at + bytes.len()].copy_from_slice(&bytes);
        file.write_all_at(&bytes, at as u64).unwrap();
    }
    let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
    assert_eq!(fs::read(dir.join("file")).unwrap(), expected[..size]);
    assert_eq!(file.read_at(&mut [0; 10], 300_000).unwrap(), 0);
}

fn large_writes(dir: &Path) {
    let bytes = pattern(9 << 20);
    let mut file = open(&dir.join("file"));
    file.write_all(&bytes).unwrap();
    file.write_all_at(&bytes[..5_000_001], 12_345_678).unwrap();
    let found = fs::read(dir.join("file")).unwrap();
    assert_eq!(found.len(), 12_345_678 + 5_000_001);
    assert!(found[..bytes.len()] == bytes && found[12_345_678..] == bytes[..5_000_001]);
}

/// POSIX: each append goes to the end as it is then; nothing is overwritten.
fn two_appenders(dir: &Path) {
    let path = dir.join("log");
    let append = |letter: u8| {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        (0..500).for_each(|_| file.write_all(&[letter; 37]).unwrap());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| append(b'a'));
        scope.spawn(|| append(b'b'));
    });
    let found = fs::read(&path).unwrap();
    assert_eq!(found.len(), 2 * 500 * 37);
    assert!(found.chunks(37).all(|line| line.iter().all(|byte| *byte == line[0])), "a line was torn");
    assert_eq!(found.iter().filter(|byte| **byte == b'a').count(), 500 * 37);
    // pwrite(2) on Linux: with O_APPEND the offset does not count.
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all_at(b"end", 0).unwrap();
    assert!(fs::read(&path).unwrap().ends_with(b"end"));
}

fn truncate_up_and_down(dir: &Path) {
    let file = open(&dir.join("file"));
    file.write_all_at(&pattern(10_000), 0).unwrap();
    file.set_len(5_001).unwrap();
    file.set_len(20_000).unwrap();
    let mut expected = pattern(10_000)[..5_001].to_vec();
    expected.resize(20_000, 0);
    assert_eq!(fs::read(dir.join("file")).unwrap(), expected);
    file.set_len(0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.write_all_at(b"x", 4_095).unwrap();
    assert_eq!(fs::read(dir.join("file")).unwrap(), [vec![0; 4_095], b"x".to_vec()].concat());
    fs::create_dir(dir.join("sub")).unwrap();
    assert!(File::open(dir.join("file")).unwrap().set_len(1).is_err());
}

fn opened_with_truncate(dir: &Path) {
    fs::write(dir.join("file"), pattern(50_000)).unwrap();
    let reader = File::open(dir.join("file")).unwrap();
    let writer = OpenOptions::new().write(true).truncate(true).open(dir.join("file")).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all_at(b"new", 0).unwrap();
    let mut bytes = [0; 10];
    assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 3);
}

/// DESIGN P3: "holes stay holes".
fn sparse_files_and_their_map(dir: &Path) {
    let file = open(&dir.join("file"));
    file.set_len(64 << 20).unwrap();
    for megabyte in [3, 17, 40] {
        file.write_all_at(&pattern(8_192), megabyte << 20).unwrap();
    }
    assert!(file.metadata().unwrap().blocks() * 512 <= 128 << 10);
    assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(3 << 20));
    assert_eq!(seek(&file, SeekFrom::Hole(3 << 20)), Ok((3 << 20) + 8_192));
    assert_eq!(seek(&file, SeekFrom::Data((17 << 20) + 8_192)), Ok(40 << 20));
    assert_eq!(seek(&file, SeekFrom::Data((40 << 20) + 8_192)), Err(Errno::NXIO));
    assert_eq!(seek(&file, SeekFrom::Hole(50 << 20)), Ok(50 << 20));
    assert_eq!(seek(&file, SeekFrom::Hole(64 << 20)), Err(Errno::NXIO));
}

fn offsets_beyond_32_bits(dir: &Path) {
    let file = open(&dir.join("file"));
    let far = (1 << 40) + 4_097;
    file.write_all_at(b"far away", far).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far + 8);
    let mut bytes = [1; 12];
    file.read_exact_at(&mut bytes, far - 4).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0far away");
    file.set_len((1 << 41) + 1).unwrap();
    assert_eq!(seek(&file, SeekFrom::End(0)), Ok((1 << 41) + 1));
}

fn copy_all(from: &File, mut at: u64, to: &File, mut to_at: u64, len: usize) -> usize {
    let mut done = 0;
    while done < len {
        match copy_file_range(from, Some(&mut at), to, Some(&mut to_at), len - done).unwrap() {
            0 => break,
            count => done += count,
        }
    }
    done
}

fn copy_between_files(dir: &Path) {
    let (from, to) = (open(&dir.join("from")), open(&dir.join("to")));
    let bytes = pattern(3 << 20);
    from.write_all_at(&bytes, 0).unwrap();
    assert_eq!(copy_all(&from, 1_000, &to, 500, 2 << 20), 2 << 20);
    let expected = [vec![0; 500], bytes[1_000..1_000 + (2 << 20)].to_vec()].concat();
    assert!(fs::read(dir.join("to")).unwrap() == expected);
    assert_eq!(copy_all(&from, (3 << 20) - 10, &to, 0, 100), 10, "a copy ends at the end of the file");
    fs::copy(dir.join("from"), dir.join("whole")).unwrap();
    assert!(fs::read(dir.join("whole")).unwrap() == bytes);
}

fn copy_within_one_file(dir: &Path) {
    let file = open(&dir.join("file"));
    let bytes = pattern(100_000);
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(copy_all(&file, 0, &file, 150_000, 60_000), 60_000);
    assert!(fs::read(dir.join("file")).unwrap()[150_000..] == bytes[..60_000]);
    let (mut from, mut to) = (0, 1_000);
    let overlapping = copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 5_000);
    assert_eq!(overlapping, Err(Errno::INVAL));
}

fn direct(dir: &Path) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    let Ok(file) = options.open(dir.join("file")) else { return };
    // Aligned for any device by cutting an aligned part out of a larger buffer.
    let mut buffer = vec![7_u8; 3 * 4096];
    let start = buffer.as_ptr().align_offset(4096);
    let part = &mut buffer[start..start + 8192];
    file.write_all_at(part, 4096).unwrap();
    part.fill(0);
    file.read_exact_at(part, 4096).unwrap();
    assert!(part.iter().all(|byte| *byte == 7));
    let mut cached = [0; 100];
    File::open(dir.join("file")).unwrap().read_exact_at(&mut cached, 4090).unwrap();
    assert_eq!((cached[0], cached[6], cached[99]), (0, 7, 7));
}

fn synchronous(dir: &Path) {
    for (name, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
        let mut options = OpenOptions::new();
        options.append(true).create(true).custom_flags(flag);
        let mut file = options.open(dir.join(name)).unwrap();
        file.write_all(b"one ").unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"one two");
    }
}

fn exec_of_a_program(dir: &Path) {
    // Written by other processes: a child that another test forks meanwhile would inherit a descriptor of this one,
    // and as long as it is open for writing nobody can execute the file.
    assert!(Command::new("cp").arg("/bin/true").arg(dir.join("program")).status().unwrap().success());
    assert!(Command::new(dir.join("program")).status().unwrap().success());
    let write = r#"printf '#!/bin/sh\necho "$0 ran"\n' > "$1""#;
    assert!(Command::new("sh").args(["-c", write, "sh"]).arg(dir.join("script")).status().unwrap().success());
    fs::set_permissions(dir.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(dir.join("script")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("script ran\n"));
    fs::set_permissions(dir.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(Command::new(dir.join("script")).status().is_err());
}

fn sendfile_both_ways(dir: &Path) {
    let bytes = pattern(200_000);
    fs::write(dir.join("from"), &bytes).unwrap();
    let (from, to) = (File::open(dir.join("from")).unwrap(), File::create(dir.join("to")).unwrap());
    let mut sent = 0;
    while sent < bytes.len() {
        sent += sendfile(&to, &from, None, bytes.len() - sent).unwrap();
    }
    assert!(fs::read(dir.join("to")).unwrap() == bytes);
}

fn read_only_and_write_only(dir: &Path) {
    fs::write(dir.join("file"), b"content").unwrap();
    let errno = |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err());
    let reader = File::open(dir.join("file")).unwrap();
    assert_eq!(errno(reader.write_all_at(b"x", 0)), Some(Errno::BADF));
    let writer = OpenOptions::new().write(true).open(dir.join("file")).unwrap();
    assert_eq!(errno(writer.read_at(&mut [0; 4], 0).map(drop)), Some(Errno::BADF));
    // Partial pages through a write-only file.
    writer.write_all_at(b"X", 2).unwrap();
    assert_eq!(fs::read(dir.join("file")).unwrap(), b"coXtent");
    let directory = File::open(dir).unwrap();
    assert_eq!(errno((&directory).read(&mut [0; 4]).map(drop)), Some(Errno::ISDIR));
}

fn vectors(dir: &Path) {
    let file = open(&dir.join("file"));
    let parts = [pattern(5), pattern(70_000), pattern(4_096), pattern(1)];
    let slices: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    let whole = parts.concat();
    let mut done = (&file).write_vectored(&slices).unwrap();
    while done < whole.len() {
        done += file.write_at(&whole[done..], done as u64).unwrap();
    }
    assert!(fs::read(dir.join("file")).unwrap() == whole);
}

fn many_open_files(dir: &Path) {
    let files: Vec<File> = (0..1_000).map(|number| open(&dir.join(number.to_string()))).collect();
    for (number, file) in files.iter().enumerate() {
        file.write_all_at(number.to_string().as_bytes(), 0).unwrap();
    }
    fs::rename(dir.join("7"), dir.join("seven")).unwrap();
    files[7].write_all_at(b"!", 1).unwrap();
    drop(files);
    assert_eq!(fs::read(dir.join("seven")).unwrap(), b"7!");
    assert_eq!(fs::read(dir.join("999")).unwrap(), b"999");
}

fn empty_writes_change_nothing(dir: &Path) {
    fs::write(dir.join("file"), b"content").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
    let file = open(&dir.join("file"));
    file.set_modified(old).unwrap();
    assert_eq!(file.write_at(b"", 100).unwrap(), 0);
    assert_eq!(file.metadata().unwrap().len(), 7);
    assert_eq!(file.metadata().unwrap().modified().unwrap(), old);
}
