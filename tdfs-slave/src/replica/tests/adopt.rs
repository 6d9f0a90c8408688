//! Tests of whose directory it is: another one at the same path, somebody's data, another filesystem's replica.

use super::*;

const OTHER: Id = Id([4; 16]);

impl Scene {
    /// Another directory at the replica's path; the old one is kept.
    fn exchange_directory(&self) {
        fs::rename(self.replica(""), self.dir.path().join("away")).unwrap();
        fs::create_dir(self.replica("")).unwrap();
    }

    fn bring_directory_back(&self) {
        fs::remove_dir_all(self.replica("")).unwrap();
        fs::rename(self.dir.path().join("away"), self.replica("")).unwrap();
    }

    fn state(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("state").join(name)).unwrap()
    }

    fn open_adopting(&self) -> Replica {
        self.try_open_with(true).unwrap()
    }

    /// Has a master of `filesystem` make the replica equal.
    fn fill(&self, replica: &mut Replica, filesystem: Id) -> Result<(), String> {
        replica.begin(filesystem, &self.begin(RESYNC))?;
        self.answer_all(replica);
        assert!(matches!(replica.standing(), Standing::Equal { .. }));
        Ok(())
    }
}

/// DESIGN section 7: "A root, on either side, that is no longer the recorded one [...] is refused at start".
#[test]
fn another_directory_is_refused_and_nothing_is_changed() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "content").unwrap();
    drop(scene.equal());
    let before = (scene.state("replica.json"), scene.state("applied"));
    scene.exchange_directory();
    for name in [None, Some("something")] {
        if let Some(name) = name {
            fs::write(scene.replica(name), "").unwrap();
        }
        let why = scene.try_open().err().unwrap();
        assert!(why.is::<WrongUse>(), "{why:#}");
        assert!(why.to_string().contains("--adopt"), "{why:#}");
        assert_eq!((scene.state("replica.json"), scene.state("applied")), before);
    }
    scene.bring_directory_back();
    assert!(matches!(scene.open().standing(), Standing::Equal { .. }));
}

#[test]
fn a_directory_that_was_there_before_is_not_made_again() {
    let scene = Scene::new();
    drop(scene.equal());
    fs::rename(scene.replica(""), scene.dir.path().join("away")).unwrap();
    let why = scene.try_open().err().unwrap();
    assert!(why.is::<WrongUse>() && why.to_string().contains("mounted"), "{why:#}");
    assert!(!scene.replica("").exists(), "it would stay there, below the mountpoint");
    assert_eq!(scene.open_adopting().standing(), Standing::New);
}

#[test]
fn another_directory_that_is_adopted_begins_anew_and_durably() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "content").unwrap();
    drop(scene.equal());
    scene.exchange_directory();
    fs::write(scene.replica("thesis"), "years of work").unwrap();
    let replica = scene.open_adopting();
    assert_eq!((replica.standing(), replica.filesystem()), (Standing::New, None));
    kill(replica);
    // What the user said counts for that start alone: nobody has begun, so nobody may.
    let mut replica = scene.open();
    assert_eq!((replica.standing(), replica.filesystem()), (Standing::New, None));
    let why = scene.fill(&mut replica, FILESYSTEM).unwrap_err();
    assert!(why.contains("neither empty nor a replica") && why.contains("--adopt"), "{why}");
    drop(replica);
    let mut replica = scene.open_adopting();
    scene.fill(&mut replica, FILESYSTEM).unwrap();
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"content");
    assert!(!scene.replica("thesis").exists());
}

/// What looks equal by size and mtime may be anything: it was never of this filesystem.
#[test]
fn adopted_content_is_compared_as_a_whole() {
    let scene = Scene::new();
    for (path, content) in [(scene.master("f"), "the master's"), (scene.replica("f"), "somebody's!!")] {
        fs::write(&path, content).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(77)).unwrap();
    }
    let mut replica = scene.open_adopting();
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    // So young a ctime would be suspect in any case.
    assert_eq!(replica.kept.began, None, "under suspicion as a whole, however old it is");
    scene.answer_all(&mut replica);
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"the master's");
}

#[test]
fn another_filesystem_s_replica_is_adopted_once() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "of the first").unwrap();
    drop(scene.equal());
    fs::remove_file(scene.master("f")).unwrap();
    fs::write(scene.master("g"), "of the other").unwrap();
    let mut replica = scene.open();
    assert!(scene.fill(&mut replica, OTHER).unwrap_err().contains("--adopt"));
    assert!(scene.replica("f").exists());
    drop(replica);
    let mut replica = scene.open_adopting();
    assert_eq!(replica.filesystem(), None, "whoever comes may have it");
    let why = replica.begin(OTHER, &scene.begin(Plan::Stream)).unwrap_err();
    assert!(why.contains("no stream"), "{why}");
    scene.fill(&mut replica, OTHER).unwrap();
    assert_eq!((replica.filesystem(), scene.replica("f").exists()), (Some(OTHER), false));
    assert!(scene.fill(&mut replica, FILESYSTEM).is_err(), "it is used up");
    drop(replica);
    assert_eq!(scene.open().filesystem(), Some(OTHER));
}

/// Durable before the first change: what was begun goes on, also without being said again.
#[test]
fn an_adoption_that_was_begun_goes_on_after_a_kill() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "content").unwrap();
    fs::write(scene.replica("thesis"), "years of work").unwrap();
    let mut replica = scene.open_adopting();
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    assert!(scene.replica("thesis").exists(), "nothing is changed before an answer comes");
    kill(replica);
    let mut replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    assert!(scene.fill(&mut replica, OTHER).is_err());
    scene.fill(&mut replica, FILESYSTEM).unwrap();
    assert!(!scene.replica("thesis").exists());
}

#[test]
fn a_replica_that_is_fine_is_left_alone() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "content").unwrap();
    drop(scene.equal());
    let before = scene.state("replica.json");
    let mut replica = scene.open_adopting();
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    assert!(replica.wants().is_empty() && scene.state("replica.json") == before);
    assert!(scene.fill(&mut replica, OTHER).is_err(), "its own master has used it up");
}

#[test]
fn state_that_records_no_root_records_the_present_one() {
    let scene = Scene::new();
    drop(scene.equal());
    let mut value: serde_json::Value = serde_json::from_slice(&scene.state("replica.json")).unwrap();
    assert!(value.as_object_mut().unwrap().remove("root").is_some());
    fs::write(scene.dir.path().join("state/replica.json"), value.to_string()).unwrap();
    assert!(matches!(scene.open().standing(), Standing::Equal { .. }));
    scene.exchange_directory();
    assert!(scene.try_open().is_err());
}
