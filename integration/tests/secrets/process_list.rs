//! Every command line that any process had, as any user of the machine could have seen it.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two looks: short against the life of the shortest command.
const EVERY: Duration = Duration::from_millis(20);

/// A thread that looks on.
pub(crate) struct ProcessList {
    end: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl ProcessList {
    pub(crate) fn watch() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                seen.extend(look());
                thread::sleep(EVERY);
            }
            seen
        });
        Self { end, thread }
    }

    /// All that was seen.
    pub(crate) fn end(self) -> BTreeSet<Vec<u8>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn look() -> impl Iterator<Item = Vec<u8>> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    // Whoever ends while we look has no command line any more.
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok())
}
