//! What a build may take and what it does when something fails. None of it reaches a key.

use crate::base::Cancel;

#[derive(Clone, Debug)]
pub struct Options {
    /// Whose last keys are kept for `explain`: the root manifest's folder.
    pub project: String,
    /// Threads that all running steps share; 0 means as many as the machine has.
    pub jobs: usize,
    /// Memory that all running steps share; 0 means what the machine has.
    pub memory_bytes: u64,
    pub gpus: u32,
    pub on_failure: OnFailure,
    pub cache: CacheUse,
    pub cancel: Cancel,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            project: String::new(),
            jobs: 0,
            memory_bytes: 0,
            gpus: 0,
            on_failure: OnFailure::Stop,
            cache: CacheUse::Reuse,
            cancel: Cancel::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// What runs may end; nothing else begins.
    Stop,
    /// All that does not need the failed step is built: `--keep-going`.
    KeepGoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// Run only what the cache does not hold.
    Reuse,
    /// Run everything, and compare with what the cache holds: `--no-cache`, `verify --rebuild`.
    Rebuild,
}

/// What there is to share out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cpu: u32,
    pub memory_bytes: u64,
    pub gpus: u32,
}

impl Options {
    pub fn capacity(&self) -> Capacity {
        let machine = || std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = if self.jobs == 0 { machine() } else { self.jobs };
        let memory_bytes = if self.memory_bytes == 0 { machine_memory_bytes() } else { self.memory_bytes };
        Capacity { cpu: u32::try_from(cpu).unwrap_or(u32::MAX), memory_bytes, gpus: self.gpus }
    }
}

impl Capacity {
    pub(super) fn holds(&self, taken: &Capacity) -> bool {
        self.cpu >= taken.cpu && self.memory_bytes >= taken.memory_bytes && self.gpus >= taken.gpus
    }

    pub(super) fn take(&mut self, taken: &Capacity) {
        self.cpu -= taken.cpu;
        self.memory_bytes -= taken.memory_bytes;
        self.gpus -= taken.gpus;
    }

    pub(super) fn give_back(&mut self, taken: &Capacity) {
        self.cpu += taken.cpu;
        self.memory_bytes += taken.memory_bytes;
        self.gpus += taken.gpus;
    }
}

fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
