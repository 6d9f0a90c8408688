//! Habits: which processes want the attributes of what they list.
//!
//! The kernel asks for names with attributes (READDIRPLUS) at the start of every directory. `ls -l` needs
//! them, and is spared one LOOKUP a name; find(1) does not, and pays for an inode a name. So for each process
//! now and then one directory is answered without: if the process then looks names in it up, it wants
//! attributes.

use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// So many processes are remembered.
const PROCESSES_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// The first directory of a process that is answered without attributes.
const FIRST_TRIAL: u32 = 3;
/// A process that wanted attributes is tried again after so many directories.
const NEXT_TRIAL: u32 = 64;

/// What was seen of the processes that list directories.
pub struct Habits {
    processes: Mutex<LruCache<u32, Habit>>,
}

struct Habit {
    /// Directories until the next trial.
    until_trial: u32,
    /// The directory that was last answered without attributes, until something is looked up in it.
    bare: Option<u64>,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { processes: Mutex::new(LruCache::new(PROCESSES_MAX)) }
    }
}

impl Habits {
    /// A process begins to list a directory: true if it is answered with attributes.
    pub fn wants_attributes(&self, process: u32, directory: u64) -> bool {
        let mut processes = self.processes.lock();
        let habit = processes.get_or_insert_mut(process, || Habit { until_trial: FIRST_TRIAL, bare: None });
        // Nothing was looked up in the last bare one: it goes on like that.
        habit.until_trial = if habit.bare.is_some() { 0 } else { habit.until_trial.saturating_sub(1) };
        habit.bare = (habit.until_trial == 0).then_some(directory);
        habit.bare.is_none()
    }

    /// A process looked up, in a directory, the name of something that is no directory.
    pub fn looked_up(&self, process: u32, directory: u64) {
        let mut processes = self.processes.lock();
        if let Some(habit) = processes.peek_mut(&process)
            && habit.bare == Some(directory)
        {
            *habit = Habit { until_trial: NEXT_TRIAL, bare: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_nothing_up_gets_no_attributes() {
        let habits = Habits::default();
        let answers: Vec<bool> = (0..10).map(|directory| habits.wants_attributes(7, directory)).collect();
        assert_eq!(answers, [true, true, false, false, false, false, false, false, false, false]);
    }

    #[test]
    fn who_looks_names_up_gets_attributes_and_is_tried_again_seldom() {
        let habits = Habits::default();
        let mut bare = 0;
        for directory in 0..200 {
            if !habits.wants_attributes(7, directory) {
                bare += 1;
                habits.looked_up(7, directory);
            }
        }
        assert_eq!(bare, 4);
    }

    #[test]
    fn processes_are_told_apart() {
        let habits = Habits::default();
        for directory in 0..5 {
            habits.wants_attributes(7, directory);
        }
        assert!(!habits.wants_attributes(7, 5) && habits.wants_attributes(8, 5));
        habits.looked_up(8, 5);
        assert!(!habits.wants_attributes(7, 6));
    }
}
