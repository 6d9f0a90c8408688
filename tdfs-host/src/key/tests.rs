//! Keys are made once, read strictly, and named as openssl would.

use super::{FILE_NAME, Fingerprint, Key, fingerprint_at};
use crate::state::{StateDir, StateError};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn made() -> (tempfile::TempDir, PathBuf, Fingerprint) {
    let dir = tempfile::tempdir().unwrap();
    let fingerprint = Key::open(&StateDir::open(dir.path()).unwrap()).unwrap().fingerprint();
    let file = dir.path().join(FILE_NAME);
    (dir, file, fingerprint)
}

#[test]
fn a_key_is_made_once_and_only_for_its_owner() {
    let (dir, file, fingerprint) = made();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(Key::open(&state).unwrap().fingerprint(), fingerprint);
    assert_eq!(fingerprint_at(dir.path()).unwrap(), fingerprint, "while a daemon holds the directory");
    let other = tempfile::tempdir().unwrap();
    let missing = other.path().join("state");
    assert_ne!(fingerprint_at(&missing).unwrap(), fingerprint);
    assert_eq!(std::fs::metadata(&missing).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn a_damaged_or_exposed_key_is_an_error_and_stays() {
    let (dir, file, _) = made();
    let state = StateDir::open(dir.path()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        // The letters around the base64 may differ in ways that do not matter; what is read is the same key then.
        if let Ok(key) = Key::open(&state) {
            std::fs::write(&file, &whole).unwrap();
            assert_eq!(key.fingerprint(), Key::open(&state).unwrap().fingerprint(), "byte {at}");
        }
    }
    for bad in [&b""[..], b"x", &whole[..whole.len() / 2]] {
        std::fs::write(&file, bad).unwrap();
        assert!(matches!(Key::open(&state), Err(StateError::Damaged { .. })), "{bad:?}");
        assert_eq!(std::fs::read(&file).unwrap(), bad);
    }
    std::fs::write(&file, &whole).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let error = Key::open(&state).unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    assert!(Key::open(&state).is_err());
}

#[test]
fn nothing_of_the_secret_is_shown() {
    let (dir, _, fingerprint) = made();
    let key = Key::open(&StateDir::open(dir.path()).unwrap()).unwrap();
    assert_eq!(format!("{key:?}"), format!("Key({fingerprint})"));
}

#[test]
fn fingerprints_are_read_as_they_are_shown() {
    let shown = "SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4";
    let read: Fingerprint = shown.parse().unwrap();
    assert_eq!(read.to_string(), shown);
    assert_eq!(serde_json::to_string(&read).unwrap(), format!("\"{shown}\""));
    let longer = format!("{shown}A");
    let padded = format!("{shown}=");
    for bad in ["", "SHA256:", "RFMxmM5", &shown[..40], &longer, &padded, "sha256:RFMx", "SHA256:R/x"] {
        let said = bad.parse::<Fingerprint>().unwrap_err();
        assert!(said.contains("is no fingerprint") && !said.contains('\n'), "{said}");
    }
    // The last letter has two bits that no byte uses: one way of writing it only.
    assert!("SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ5".parse::<Fingerprint>().is_err());
}

/// SHA-256 over the DER SubjectPublicKeyInfo of the test key of RFC 8410, section 10.3, computed by openssl.
#[test]
fn the_fingerprint_is_that_of_the_der_public_key() {
    let public = [
        &super::SPKI_HEAD[..],
        &[
            0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96,
            0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
        ],
    ]
    .concat();
    assert_eq!(Fingerprint::of(&public).to_string(), "SHA256:oekVYFTgT6yJmunydRMs3Ael28TqLCrTof/G4NJTaB8");
}
