//! A small tree whose changes have numbers: what it holds after each, and what a reader may conclude.
//!
//! Pure but for `perform`, which does a change on a real tree. Directories `d0`.. each hold a symlink `me` that
//! never changes and says which one it is, whatever its name is now; files hold only lines, each with the number
//! of the change that appended it. So a reader always knows which object he has met.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use harness::Rng;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Directories below the root, and names in each.
pub const DIRECTORIES: usize = 5;
pub const NAMES: usize = 6;
/// A file of so many lines is not appended to.
const LINES_MAX: usize = 120;

/// Number of a change; 0 is before the first.
pub type Step = u64;
/// A directory's identity, and a number of a name in it.
pub type Slot = (usize, usize);

/// One change, which is one record.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Create(Slot),
    Append(Slot),
    Unlink(Slot),
    /// Over what is there, or to a new name.
    Rename(Slot, Slot),
    /// `RENAME_EXCHANGE` of two files.
    Swap(Slot, Slot),
    /// `RENAME_EXCHANGE` of two directories, given by the numbers of their names.
    SwapDirectories(usize, usize),
    Link(Slot, Slot),
}

/// Something that was seen at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This name was that directory.
    Directory(usize, usize),
    /// Nothing had this name.
    Nothing(Slot),
    /// A file without a line had this name.
    Empty(Slot),
    /// The file that this change created had this name.
    Named(Slot, Step),
    /// The file that the first change created had so many lines.
    Lines(Step, usize),
}

#[derive(Debug, Default)]
struct FileModel {
    names: Vec<Slot>,
    lines: Vec<Step>,
    digest: u64,
}

/// The tree, and all that it ever was.
#[derive(Debug)]
pub struct Model {
    /// The newest change.
    pub step: Step,
    /// Which directory has name `d{index}`.
    directories: Vec<usize>,
    slots: BTreeMap<Slot, Step>,
    files: HashMap<Step, FileModel>,
    state: u64,
    /// The same state can come again.
    states: HashMap<u64, Vec<Step>>,
    directory_history: Vec<Vec<(Step, usize)>>,
    slot_history: HashMap<Slot, Vec<(Step, Option<Step>)>>,
}

fn hash_of(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn directory_hash(name: usize, directory: usize) -> u64 {
    hash_of(("directory", name, directory))
}

fn slot_hash(slot: Slot, digest: u64) -> u64 {
    hash_of(("slot", slot, digest))
}

/// The line that change `step` appends to the file that `created` made.
pub fn line(step: Step, created: Step) -> String {
    format!("{step:010} {created:010}\n")
}

impl Model {
    /// As it is after `plant`.
    pub fn new() -> Self {
        let directories: Vec<usize> = (0..DIRECTORIES).collect();
        let state = directories.iter().fold(0, |state, name| state ^ directory_hash(*name, *name));
        Self {
            step: 0,
            directory_history: directories.iter().map(|directory| vec![(0, *directory)]).collect(),
            directories,
            slots: BTreeMap::new(),
            files: HashMap::new(),
            state,
            states: HashMap::from([(state, vec![0])]),
            slot_history: HashMap::new(),
        }
    }

    /// Draws a change that is possible now.
    pub fn draw(&self, rng: &mut Rng) -> Change {
        loop {
            let (one, two) = (self.slot(rng), self.slot(rng));
            let (has_one, has_two) = (self.slots.contains_key(&one), self.slots.contains_key(&two));
            let change = match rng.below(20) {
                0..4 if !has_one => Change::Create(one),
                4..14 if has_one && self.file(one).lines.len() < LINES_MAX => Change::Append(one),
                14 if has_one => Change::Unlink(one),
                // Two names of one file: rename(2) does nothing then.
                15 | 16 if has_one && self.slots.get(&one) != self.slots.get(&two) => {
                    Change::Rename(one, two)
                }
                17 if has_one && has_two && self.slots[&one] != self.slots[&two] => Change::Swap(one, two),
                18 if one.0 != two.0 => Change::SwapDirectories(one.0, two.0),
                19 if has_one && !has_two => Change::Link(one, two),
                _ => continue,
            };
            return change;
        }
    }

    fn slot(&self, rng: &mut Rng) -> Slot {
        (rng.index(DIRECTORIES), rng.index(NAMES))
    }

    fn file(&self, slot: Slot) -> &FileModel {
        &self.files[&self.slots[&slot]]
    }

    /// The present path of a name.
    pub fn path(&self, root: &Path, (directory, name): Slot) -> PathBuf {
        let at = self.directories.iter().position(|found| *found == directory).unwrap();
        root.join(format!("d{at}/f{name}"))
    }

    /// Does `change` below `root`, as the next one.
    pub fn perform(&self, root: &Path, change: Change) -> std::io::Result<()> {
        let path = |slot| self.path(root, slot);
        match change {
            Change::Create(slot) => File::create_new(path(slot)).map(drop),
            Change::Append(slot) => {
                let line = line(self.step + 1, self.slots[&slot]);
                File::options().append(true).open(path(slot))?.write_all(line.as_bytes())
            }
            Change::Unlink(slot) => fs::remove_file(path(slot)),
            Change::Rename(from, to) => fs::rename(path(from), path(to)),
            Change::Link(from, to) => fs::hard_link(path(from), path(to)),
            Change::Swap(one, two) => {
                Ok(renameat_with(CWD, path(one), CWD, path(two), RenameFlags::EXCHANGE)?)
            }
            Change::SwapDirectories(one, two) => {
                let [one, two] = [one, two].map(|name| root.join(format!("d{name}")));
                Ok(renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?)
            }
        }
    }

    /// Takes `change`, which was done, into the model.
    pub fn apply(&mut self, change: Change) {
        self.step += 1;
        match change {
            Change::Create(slot) => {
                self.files.insert(self.step, FileModel::default());
                self.set(slot, Some(self.step));
            }
            Change::Append(slot) => self.append(self.slots[&slot]),
            Change::Unlink(slot) => self.set(slot, None),
            Change::Rename(from, to) => {
                let file = self.slots[&from];
                self.set(from, None);
                self.set(to, Some(file));
            }
            Change::Link(from, to) => self.set(to, Some(self.slots[&from])),
            Change::Swap(one, two) => {
                let (first, second) = (self.slots[&one], self.slots[&two]);
                self.set(one, Some(second));
                self.set(two, Some(first));
            }
            Change::SwapDirectories(one, two) => {
                for name in [one, two] {
                    self.state ^= directory_hash(name, self.directories[name]);
                }
                self.directories.swap(one, two);
                for name in [one, two] {
                    self.state ^= directory_hash(name, self.directories[name]);
                    self.directory_history[name].push((self.step, self.directories[name]));
                }
            }
        }
        self.states.entry(self.state).or_default().push(self.step);
    }

    fn set(&mut self, slot: Slot, file: Option<Step>) {
        if let Some(old) = self.slots.remove(&slot) {
            let old = self.files.get_mut(&old).unwrap();
            old.names.retain(|name| *name != slot);
            self.state ^= slot_hash(slot, old.digest);
        }
        if let Some(new) = file {
            self.slots.insert(slot, new);
            let file = self.files.get_mut(&new).unwrap();
            file.names.push(slot);
            self.state ^= slot_hash(slot, file.digest);
        }
        self.slot_history.entry(slot).or_default().push((self.step, file));
    }

    fn append(&mut self, created: Step) {
        let file = self.files.get_mut(&created).unwrap();
        let digest = hash_of((file.digest, self.step, created));
        for name in &file.names {
            self.state ^= slot_hash(*name, file.digest) ^ slot_hash(*name, digest);
        }
        file.lines.push(self.step);
        file.digest = digest;
    }

    /// The first change from `from` on after which a tree held exactly what `held` holds; None if there is none.
    pub fn first_like(&self, from: Step, held: &TreeState) -> Option<Step> {
        let directories = held.directories.iter().map(|(name, directory)| directory_hash(*name, *directory));
        let digest = |lines: &Vec<(Step, Step)>| {
            lines.iter().fold(0, |digest, (step, created)| hash_of((digest, *step, *created)))
        };
        let slots = held.files.iter().map(|(slot, lines)| slot_hash(*slot, digest(lines)));
        let steps = self.states.get(&directories.chain(slots).fold(0, |state, part| state ^ part))?;
        steps.iter().copied().find(|step| *step >= from)
    }

    /// The first change from `from` on after which `seen` was so; None if that never was.
    pub fn first_with(&self, from: Step, seen: Seen) -> Option<Step> {
        let nothing = Vec::new();
        match seen {
            Seen::Directory(name, directory) => earliest(&self.directory_history[name], from, |_, found| {
                (found == directory).then_some(Step::MAX)
            }),
            Seen::Nothing(slot) => {
                let history = self.slot_history.get(&slot).unwrap_or(&nothing);
                let never_yet = history.first().is_none_or(|(step, _)| from < *step);
                if never_yet {
                    return Some(from);
                }
                earliest(history, from, |_, found| found.is_none().then_some(Step::MAX))
            }
            Seen::Named(slot, created) => {
                let history = self.slot_history.get(&slot).unwrap_or(&nothing);
                earliest(history, from, |_, found| (found == Some(created)).then_some(Step::MAX))
            }
            Seen::Empty(slot) => {
                let history = self.slot_history.get(&slot).unwrap_or(&nothing);
                let until = |created: Step| self.files[&created].lines.first().copied().unwrap_or(Step::MAX);
                earliest(history, from, |_, found| found.map(until))
            }
            Seen::Lines(created, count) => {
                let lines = &self.files.get(&created)?.lines;
                let begin = lines.get(count.checked_sub(1)?)?;
                let end = lines.get(count).copied().unwrap_or(Step::MAX);
                let step = from.max(*begin);
                (step < end).then_some(step)
            }
        }
    }
}

/// In a history of values, each from its step on: the first step from `from` on whose value `until` accepts; what
/// it gives bounds how long the value counts.
fn earliest<T: Copy>(
    history: &[(Step, T)],
    from: Step,
    until: impl Fn(Step, T) -> Option<Step>,
) -> Option<Step> {
    let ends = history.iter().skip(1).map(|(step, _)| *step).chain([Step::MAX]);
    let first = history.partition_point(|(step, _)| *step <= from).saturating_sub(1);
    history.iter().zip(ends).skip(first).find_map(|((begin, value), end)| {
        let end = end.min(until(*begin, *value)?);
        let step = from.max(*begin);
        (step < end).then_some(step)
    })
}

/// What a whole tree holds, read while nobody changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeState {
    pub directories: Vec<(usize, usize)>,
    /// Of each line: the change that appended it and the one that created the file.
    pub files: Vec<(Slot, Vec<(Step, Step)>)>,
    /// Files whose last line is not whole: the write in hand.
    pub torn: usize,
}

impl TreeState {
    pub fn read(root: &Path) -> Self {
        let mut held = Self::default();
        for directory in fs::read_dir(root).unwrap().map(Result::unwrap) {
            let name = number_of(&directory.file_name().to_string_lossy(), 'd');
            let path = directory.path();
            let identity = fs::read_link(path.join("me")).unwrap().to_string_lossy().parse().unwrap();
            held.directories.push((name, identity));
            for file in fs::read_dir(path).unwrap().map(Result::unwrap) {
                if file.file_name() == "me" {
                    continue;
                }
                let slot = (identity, number_of(&file.file_name().to_string_lossy(), 'f'));
                let (lines, torn) = parse(&fs::read(file.path()).unwrap());
                held.torn += usize::from(torn);
                held.files.push((slot, lines));
            }
        }
        held
    }
}

fn number_of(name: &str, letter: char) -> usize {
    let number = name.strip_prefix(letter).and_then(|rest| rest.parse().ok());
    number.unwrap_or_else(|| panic!("{name} was never made"))
}

/// The whole lines, and whether there is a part of one behind them.
pub fn parse(text: &[u8]) -> (Vec<(Step, Step)>, bool) {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    let lines = text[..whole].lines().map(|line| {
        let (step, created) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} was never written"));
        (step.parse().unwrap(), created.parse().unwrap())
    });
    (lines.collect(), whole < text.len())
}

/// Makes the directories below `root`.
pub fn plant(root: &Path) {
    for name in 0..DIRECTORIES {
        let directory = root.join(format!("d{name}"));
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(name.to_string(), directory.join("me")).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Model, Seen, TreeState, plant};
    use harness::{Rng, TempTree};

    /// Each state of a real tree is found, at its own step; a tree that lacks an earlier change is found at none.
    #[test]
    fn a_state_is_told_from_a_mixture() {
        let tree = TempTree::new().unwrap();
        plant(tree.path());
        let (mut model, mut rng) = (Model::new(), Rng::new(1));
        let mut last = TreeState::read(tree.path());
        let mut mixtures = 0;
        for _ in 0..2_000 {
            let change = model.draw(&mut rng);
            model.perform(tree.path(), change).unwrap();
            model.apply(change);
            let held = TreeState::read(tree.path());
            assert_eq!(model.first_like(model.step, &held), Some(model.step), "{change:?}");
            let mut mixture = held.clone();
            if let (Change::Append(slot), Some(older)) = (change, last.files.first()) {
                // This line, without the one that was there before it elsewhere.
                let other = mixture.files.iter_mut().find(|file| file.0 != slot && file.0 == older.0);
                if let Some(other) = other.filter(|other| other.1.len() > 1) {
                    other.1.pop();
                    mixtures += 1;
                    assert_eq!(model.first_like(0, &mixture), None);
                }
            }
            last = held;
        }
        assert!(mixtures > 100, "{mixtures}");
    }

    /// A reader who has seen change 4 must not miss change 2 afterwards, and may have missed it before.
    #[test]
    fn later_without_earlier_is_found() {
        let mut model = Model::new();
        let changes =
            [Change::Create((0, 0)), Change::Append((0, 0)), Change::Create((1, 0)), Change::Append((1, 0))];
        changes.into_iter().for_each(|change| model.apply(change));
        assert_eq!(model.first_with(0, Seen::Empty((0, 0))), Some(1));
        assert_eq!(model.first_with(1, Seen::Lines(3, 1)), Some(4));
        assert_eq!(model.first_with(4, Seen::Lines(1, 1)), Some(4));
        assert_eq!(model.first_with(4, Seen::Empty((0, 0))), None);
        assert_eq!(model.first_with(4, Seen::Nothing((1, 0))), None);
        assert_eq!(model.first_with(2, Seen::Nothing((1, 0))), Some(2));
        assert_eq!(model.first_with(4, Seen::Named((0, 0), 1)), Some(4));
        assert_eq!(model.first_with(0, Seen::Directory(0, 1)), None);
        model.apply(Change::SwapDirectories(0, 1));
        assert_eq!(model.first_with(0, Seen::Directory(0, 1)), Some(5));
        assert_eq!(model.first_with(5, Seen::Directory(0, 0)), None);
    }
}
