//! Random operations and faults beside a model that is as simple as can be: a vector.

use super::*;

/// Enough that each fault meets each state; a failing seed is printed and can be put here alone.
const SEEDS: std::ops::Range<u64> = 0..300;
const STEPS: usize = 150;

struct Run {
    rng: Rng,
    storage: FaultyStorage,
    log: Log,
    options: Options,
    /// Bulk lengths of all records of the epoch; index 0 is LSN 1.
    model: Vec<usize>,
    cursors: Vec<Cursor>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = Rng(seed);
        let storage = FaultyStorage::default();
        let options = Options { segment_bytes_max: [200, 1000, 5000, 300_000][rng.below(4)] };
        storage.faults(|faults| faults.preallocates_nothing = seed.is_multiple_of(3));
        let log = Log::create_in(storage.boxed(), EPOCH, options).unwrap();
        Run { rng, storage, log, options, model: Vec::new(), cursors: Vec::new() }
    }

    fn head(&self) -> u64 {
        self.model.len() as u64
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=8 => self.append(),
            9 => drop(self.log.reserve(self.rng.below(2000)).unwrap()),
            10..=12 => self.read(),
            13 => self.open_cursor(),
            14 => self.retain(),
            15 => self.kill(),
            16 => self.tear(),
            17 => self.fill_disk(),
            18 => assert_eq!(self.log.sync().unwrap(), self.log.head()),
            _ => self.ask(),
        }
        assert_eq!(self.log.head(), lsn(self.head()));
        assert!(self.log.oldest() <= self.log.head().next());
    }

    fn bulk_len(&mut self) -> usize {
        [0, 0, 10, 300, 4096, 90_000][self.rng.below(6)]
    }

    fn append(&mut self) {
        for _ in 0..self.rng.below(5) {
            let bulk_len = self.bulk_len();
            append(&self.log, self.head() + 1, bulk_len).unwrap();
            self.model.push(bulk_len);
        }
    }

    fn open_cursor(&mut self) {
        let after = lsn(self.rng.below(self.model.len() + 2) as u64);
        let oldest = self.log.oldest();
        match self.log.cursor(after) {
            Ok(cursor) => self.cursors.push(cursor),
            Err(LogError::Ahead { .. }) => assert!(after > self.log.head()),
            Err(LogError::Gone { oldest: told }) => assert!(told == oldest && after.next() < oldest),
            Err(e) => panic!("{e}"),
        }
        if self.cursors.len() > 4 {
            self.cursors.remove(0);
        }
    }

    fn read(&mut self) {
        let up_to = lsn(self.rng.below(self.model.len() + 3) as u64);
        let bytes_max = [0, 100, 5000, 1 << 20][self.rng.below(4)];
        let mut gone = Vec::new();
        for (at, cursor) in self.cursors.iter_mut().enumerate() {
            let before = cursor.position();
            match cursor.read(up_to, bytes_max) {
                Ok(None) => assert!(before >= up_to.min(self.log.head())),
                Ok(Some(batch)) => {
                    assert!(batch.first == before.next() && batch.last() <= up_to);
                    assert!(batch.count == 1 || batch.bytes.len() <= bytes_max);
                    let mut rest = &*batch.bytes;
                    for number in batch.first.get()..=batch.last().get() {
                        let (record, len) = Record::parse(rest).unwrap();
                        let (op, bulk) = op(number, self.model[usize::try_from(number).unwrap() - 1]);
                        assert_eq!((record.lsn, record.op, record.bulk), (lsn(number), op, &*bulk));
                        rest = &rest[len..];
                    }
                    assert!(rest.is_empty());
                }
                Err(LogError::Gone { oldest }) => {
                    assert!(before.next() < oldest);
                    gone.push(at);
                }
                Err(e) => panic!("{e}"),
            }
        }
        gone.into_iter().rev().for_each(|at| drop(self.cursors.remove(at)));
    }

    fn retain(&mut self) {
        let floor = match self.rng.below(2) {
            0 => lsn(self.rng.below(self.model.len() + 1) as u64),
            _ => self.log.floor_within(self.rng.below(20_000) as u64),
        };
        self.storage.faults(|faults| faults.remove_fails = self.rng.below(8) == 0);
        let before = self.log.oldest();
        let _ = self.log.retain(floor);
        self.storage.faults(|faults| faults.remove_fails = false);
        assert!(self.log.oldest() <= floor.next().max(before));
    }

    /// kill -9, in half of the cases while a record was being written: no appended record is lost.
    fn kill(&mut self) {
        self.storage = self.storage.copy();
        if self.rng.below(2) == 0 {
            let (op, bulk) = op(self.head() + 1, 200);
            let mut draft = Draft::new(&op, &bulk).unwrap();
            let record = draft.place(lsn(self.head() + 1), 1).concat();
            let name = self.storage.names().pop().unwrap();
            let torn = &record[..self.rng.below(record.len())];
            self.storage.write(&name, [&*self.storage.read(&name), torn].concat());
        }
        self.cursors.clear();
        self.log = reopen(&self.storage, self.options).unwrap().0;
    }

    fn tear(&mut self) {
        // In the header of a next segment or in the record; the latter needs the log's own reservation first.
        self.storage.faults(|faults| faults.tear = Some(self.rng.below(300)));
        let failed = append(&self.log, self.head() + 1, 400);
        self.storage.faults(|faults| (faults.tear, faults.write_fails) = (None, false));
        assert!(matches!(failed, Err(LogError::Io { .. })));
    }

    fn fill_disk(&mut self) {
        self.storage.faults(|faults| faults.capacity = Some(0));
        while self.rng.below(4) != 0 {
            let bulk_len = self.bulk_len();
            match append(&self.log, self.head() + 1, bulk_len) {
                Ok(_) => self.model.push(bulk_len),
                Err(e) => assert!(e.is_no_space(), "{e}"),
            }
        }
        self.storage.faults(|faults| faults.capacity = None);
    }

    fn ask(&mut self) {
        let number = self.rng.below(self.model.len() + 1).max(1);
        let held = lsn(number as u64) >= self.log.oldest() && number <= self.model.len();
        assert_eq!(self.log.time_of(lsn(number as u64)), held.then_some(1000 + number as i64));
        if held {
            let len = |(at, &bulk_len): (usize, &usize)| {
                let (op, bulk) = op(at as u64 + 1, bulk_len);
                Draft::new(&op, &bulk).unwrap().len() as u64
            };
            let after: u64 = self.model.iter().enumerate().skip(number).map(len).sum();
            assert_eq!(self.log.bytes_after(lsn(number as u64)), after);
        }
    }
}

#[test]
fn random_operations_and_faults() {
    for seed in SEEDS {
        eprintln!("seed {seed}");
        let mut run = Run::new(seed);
        (0..STEPS).for_each(|_| run.step());
        let mut cursor = run.log.cursor(run.log.oldest().prev()).unwrap();
        assert_eq!(read_all(&mut cursor, 10_000), run.head() + 1 - run.log.oldest().get());
    }
}
