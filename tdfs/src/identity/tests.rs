//! Tests of which directory a state belongs to.

use super::*;
use std::fs;
use std::os::fd::AsFd;

/// Two directories and a state.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Scene {
        let scene = Scene(tempfile::tempdir().unwrap());
        for name in ["a", "b"] {
            fs::create_dir(scene.0.path().join(name)).unwrap();
        }
        scene
    }

    fn start(&self, name: &str, new: bool) -> anyhow::Result<Identity> {
        let dir = self.0.path().join(name);
        let root = Root::of(fs::File::open(&dir)?.as_fd())?;
        let state = StateDir::open(&self.0.path().join("state"))?;
        Ok(Identity::open(&state, Accepted::check(&state, &dir, root, new)?)?.0)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("state").join(FILE)
    }
}

#[test]
fn another_directory_is_refused_until_it_is_meant() {
    let scene = Scene::new();
    let first = scene.start("a", false).unwrap();
    let stored = fs::read(scene.file()).unwrap();
    let why = scene.start("b", false).err().unwrap();
    assert!(why.is::<WrongUse>() && why.to_string().contains("--new"), "{why:#}");
    assert!(fs::read(scene.file()).unwrap() == stored, "nothing was changed");
    let same = scene.start("a", true).unwrap();
    assert_eq!(same.lineage(), first.lineage(), "what is as it was is not begun anew");
    let second = scene.start("b", true).unwrap();
    assert_eq!(second.filesystem(), first.filesystem());
    let lineage = second.lineage();
    let branch = lineage.last().unwrap();
    assert_eq!((branch.epoch.number, branch.from), (2, None), "slaves have to be made equal");
    assert_eq!(scene.start("b", false).unwrap().lineage(), second.lineage());
    assert!(scene.start("a", false).is_err());
}

#[test]
fn state_that_records_no_root_records_the_present_one() {
    let scene = Scene::new();
    let first = scene.start("a", false).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(scene.file()).unwrap()).unwrap();
    assert!(value.as_object_mut().unwrap().remove("root").is_some());
    fs::write(scene.file(), value.to_string()).unwrap();
    assert_eq!(scene.start("b", false).unwrap().lineage(), first.lineage());
    assert!(scene.start("a", false).is_err());
}
