//! Throwing away what nobody needs: first a plan that can be printed, then its performance. Records and their objects go together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::{Digest, units};

use super::error::{Result, StoreError};
use super::session::{self, stamp_ns};
use super::verify::folder_bytes;
use super::{Access, Record, Store};

/// What to keep. Without an age and a size, all that is not a root goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRequest {
    /// Projects whose last results are kept whatever their age and size.
    pub roots: Vec<String>,
    /// Keep what was used within this time.
    pub max_age: Option<Duration>,
    /// Keep the most recently used that fit.
    pub max_size_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Action,
    Object,
    Checkpoint,
    Quarantined,
    /// What a killed process left.
    Stale,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcItem {
    pub part: Part,
    pub name: String,
    pub path: PathBuf,
    pub size_bytes: u64,
    pub why: &'static str,
}

/// What will be deleted, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    pub items: Vec<GcItem>,
    pub freed_bytes: u64,
    pub kept_bytes: u64,
    pub kept_actions: u64,
}

impl fmt::Display for GcPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let part = match item.part {
                Part::Action => "action",
                Part::Object => "object",
                Part::Checkpoint => "checkpoint",
                Part::Quarantined => "quarantined",
                Part::Stale => "leftover",
            };
            writeln!(f, "{part:<11} {:.12} {:>10}  {}", item.name, units::show_size(item.size_bytes), item.why)?;
        }
        let (freed, kept) = (units::show_size(self.freed_bytes), units::show_size(self.kept_bytes));
        write!(f, "frees {freed}, keeps {kept} in {} actions", self.kept_actions)
    }
}

/// A record and what it takes to decide on it.
struct Candidate {
    key: Digest,
    used_ns: i128,
    size_bytes: u64,
    record: Record,
}

impl Store {
    /// Decides what goes. Deletes nothing.
    pub fn plan_gc(&self, request: &GcRequest) -> Result<GcPlan> {
        let mut plan = GcPlan::default();
        let candidates = self.candidates(&mut plan)?;
        let roots = self.roots(&request.roots)?;
        let mut kept: BTreeMap<Digest, u64> = BTreeMap::new();
        for (candidate, is_root) in ordered(candidates, &roots) {
            let new_bytes = candidate.size_bytes + unique_bytes(&candidate.record, &kept);
            match self.verdict(request, &candidate, is_root, plan.kept_bytes.saturating_add(new_bytes)) {
                None => {
                    plan.kept_actions += 1;
                    plan.kept_bytes += new_bytes;
                    kept.extend(candidate.record.objects());
                }
                Some(why) => plan.items.push(self.item(Part::Action, "actions", candidate.key, candidate.size_bytes, why)),
            }
        }
        for (object, size_bytes) in self.listed("objects")? {
            if !kept.contains_key(&object) {
                plan.items.push(self.item(Part::Object, "objects", object, size_bytes, "no kept action needs it"));
            }
        }
        self.plan_leftovers(request, &mut plan)?;
        plan.items.sort_by(|a, b| (a.part, &a.name).cmp(&(b.part, &b.name)));
        plan.freed_bytes = plan.items.iter().map(|item| item.size_bytes).sum();
        Ok(plan)
    }

    /// Why a record goes, if it does.
    fn verdict(&self, request: &GcRequest, candidate: &Candidate, is_root: IsRoot, total_bytes: u64) -> Option<&'static str> {
        if is_root == IsRoot::Yes {
            return None;
        }
        let is_old = |max: Duration| self.opened_ns() - candidate.used_ns > i128::try_from(max.as_nanos()).unwrap_or(i128::MAX);
        match (request.max_age, request.max_size_bytes) {
            (None, None) => Some("no given project needs it"),
            (Some(age), _) if is_old(age) => Some("not used for too long"),
            (_, Some(size)) if total_bytes > size => Some("does not fit the size"),
            _ => None,
        }
    }

    fn candidates(&self, plan: &mut GcPlan) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for (key, size_bytes) in self.listed("actions")? {
            let path = self.shelf("actions", key);
            // Read before the record: a look at it counts as a use.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let used_ns = stamp_ns(meta.mtime(), meta.mtime_nsec());
            match fs::read(&path).ok().and_then(|bytes| Record::parse(&bytes).ok()) {
                Some(record) if record.key == key && self.is_whole(&record) => found.push(Candidate { key, used_ns, size_bytes, record }),
                _ => plan.items.push(self.item(Part::Action, "actions", key, size_bytes, "is damaged")),
            }
        }
        Ok(found)
    }

    fn is_whole(&self, record: &Record) -> bool {
        record.objects().all(|(object, size_bytes)| self.check_present(object, size_bytes).is_ok())
    }

    fn roots(&self, projects: &[String]) -> Result<BTreeSet<Digest>> {
        let known = self.projects()?;
        let keys = projects.iter().filter_map(|project| known.get(project)).flat_map(BTreeMap::values);
        Ok(keys.map(|latest| latest.key).collect())
    }

    fn item(&self, part: Part, folder: &str, digest: Digest, size_bytes: u64, why: &'static str) -> GcItem {
        GcItem { part, name: digest.hex(), path: self.shelf(folder, digest), size_bytes, why }
    }

    fn plan_leftovers(&self, request: &GcRequest, plan: &mut GcPlan) -> Result<()> {
        for (part, folder, why) in
            [(Part::Checkpoint, "partial", "its action is not running"), (Part::Quarantined, "quarantine", "was found damaged")]
        {
            for name in self.names(folder)? {
                let path = self.root().join(folder).join(&name);
                if part == Part::Checkpoint && self.is_young(&path, request.max_age) {
                    continue;
                }
                let size_bytes = bytes_at(&path);
                plan.items.push(GcItem { part, name, path, size_bytes, why });
            }
        }
        for path in session::stale(&self.root().join("tmp"))? {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let size_bytes = bytes_at(&path);
            plan.items.push(GcItem { part: Part::Stale, name, path, size_bytes, why: "its process is gone" });
        }
        Ok(())
    }

    fn is_young(&self, path: &Path, max_age: Option<Duration>) -> bool {
        let (Some(age), Ok(meta)) = (max_age, fs::symlink_metadata(path)) else { return false };
        let age_ns = self.opened_ns() - stamp_ns(meta.mtime(), meta.mtime_nsec());
        age_ns <= i128::try_from(age.as_nanos()).unwrap_or(i128::MAX)
    }

    /// Deletes what the plan says; records before the objects that they need. Refused unless the store was opened alone.
    pub fn perform_gc(&self, plan: &GcPlan) -> Result<()> {
        if self.access != Access::Alone {
            return Err(StoreError::Busy { path: self.root().to_path_buf() });
        }
        plan.items.iter().try_for_each(|item| session::remove_folder(&item.path))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsRoot {
    Yes,
    No,
}

/// Roots first, then the most recently used; equal times by key, so that a plan is the same twice.
fn ordered(mut candidates: Vec<Candidate>, roots: &BTreeSet<Digest>) -> Vec<(Candidate, IsRoot)> {
    candidates.sort_by_key(|candidate| (!roots.contains(&candidate.key), -candidate.used_ns, candidate.key));
    let is_root = |candidate: &Candidate| if roots.contains(&candidate.key) { IsRoot::Yes } else { IsRoot::No };
    candidates
        .into_iter()
        .map(|candidate| {
            let root = is_root(&candidate);
            (candidate, root)
        })
        .collect()
}

/// Bytes of the record's objects that nothing kept so far needs.
fn unique_bytes(record: &Record, kept: &BTreeMap<Digest, u64>) -> u64 {
    let new: BTreeMap<Digest, u64> = record.objects().filter(|(object, _)| !kept.contains_key(object)).collect();
    new.values().fold(0, |sum, size| sum.saturating_add(*size))
}

fn bytes_at(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => folder_bytes(path),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Entry, Mode, Tree};
    use super::super::{Durability, Lookup};
    use super::*;
    use std::fs::File;
    use std::time::UNIX_EPOCH;

    /// Adds an action with one output, last used so many days before the store was opened.
    fn add(store: &Store, name: &str, contents: &[&str], days: u64) -> Digest {
        let entries = contents.iter().map(|content| Entry {
            path: content[..1].to_string(),
            digest: store.put(content.as_bytes(), Durability::Batched).unwrap(),
            size_bytes: content.len() as u64,
            mode: Mode::Plain,
        });
        let key = Digest::of(name.as_bytes());
        let tree = Tree::new(entries.collect()).unwrap();
        let record = Record { key, tree, log: None, key_text: String::new(), duration: Duration::ZERO, producer: "test".into() };
        store.commit(&record, Durability::Batched).unwrap();
        let used = Duration::from_nanos(store.opened_ns() as u64) - Duration::from_secs(days * 86_400);
        File::open(store.shelf("actions", key)).unwrap().set_modified(UNIX_EPOCH + used).unwrap();
        key
    }

    fn deleted(plan: &GcPlan, part: Part) -> BTreeSet<String> {
        plan.items.iter().filter(|item| item.part == part).map(|item| item.name.clone()).collect()
    }

    #[test]
    fn roots_age_and_size_decide_and_objects_go_with_their_records() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open_alone(space.path()).unwrap();
        let root = add(&store, "root", &["a-root", "shared"], 90);
        let old = add(&store, "old", &["b-old", "shared"], 40);
        let new = add(&store, "new", &["c-new"], 1);
        store.set_latest("/p", &BTreeMap::from([("step".to_string(), root)])).unwrap();
        let day = Duration::from_secs(86_400);
        let roots = vec!["/p".to_string()];
        let names = |keys: &[Digest]| keys.iter().map(Digest::hex).collect::<BTreeSet<_>>();

        let all = store.plan_gc(&GcRequest { roots: roots.clone(), ..GcRequest::default() }).unwrap();
        assert_eq!(deleted(&all, Part::Action), names(&[old, new]));
        assert_eq!(deleted(&all, Part::Object), names(&[Digest::of(b"b-old"), Digest::of(b"c-new")]));

        let aged = GcRequest { roots: roots.clone(), max_age: Some(30 * day), max_size_bytes: None };
        assert_eq!(deleted(&store.plan_gc(&aged).unwrap(), Part::Action), names(&[old]));

        let sized = GcRequest { roots, max_age: None, max_size_bytes: Some(1) };
        assert_eq!(deleted(&store.plan_gc(&sized).unwrap(), Part::Action), names(&[old, new]));

        let plan = store.plan_gc(&aged).unwrap();
        assert_eq!(plan, store.plan_gc(&aged).unwrap(), "a plan is the same twice");
        assert!(plan.to_string().contains("not used for too long"), "{plan}");
        store.perform_gc(&plan).unwrap();
        for (key, there) in [(root, true), (old, false), (new, true)] {
            assert_eq!(matches!(store.lookup(key).unwrap(), Lookup::Hit(_)), there);
        }
        let audit = store.audit(&mut |_| {}).unwrap();
        assert_eq!((audit.objects, audit.damages.len()), (3, 0));
    }

    #[test]
    fn leftovers_go_and_a_shared_store_deletes_nothing() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        fs::create_dir(store.partial(Digest::of(b"k"))).unwrap();
        fs::write(store.partial(Digest::of(b"k")).join("step-100"), "state").unwrap();
        fs::write(space.path().join("quarantine/object-x"), "bad").unwrap();
        fs::create_dir(space.path().join("tmp/999-0")).unwrap();
        let plan = store.plan_gc(&GcRequest::default()).unwrap();
        let parts: Vec<Part> = plan.items.iter().map(|item| item.part).collect();
        assert_eq!(parts, [Part::Checkpoint, Part::Quarantined, Part::Stale]);
        assert_eq!(plan.freed_bytes, 8);
        assert!(matches!(store.perform_gc(&plan), Err(StoreError::Busy { .. })));
        let young = GcRequest { max_age: Some(Duration::from_secs(3600)), ..GcRequest::default() };
        assert_eq!(deleted(&store.plan_gc(&young).unwrap(), Part::Checkpoint).len(), 0);
        drop(store);
        let store = Store::open_alone(space.path()).unwrap();
        store.perform_gc(&store.plan_gc(&GcRequest::default()).unwrap()).unwrap();
        assert_eq!(store.plan_gc(&GcRequest::default()).unwrap().items, []);
    }
}
