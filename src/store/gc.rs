//! Throwing away what nobody needs: first a plan that can be printed, then its performance. Records and their objects go together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::{Digest, units};

use super::error::{Result, StoreError, damage};
use super::session::{self, stamp_ns};
use super::verify::folder_bytes;
use super::{Access, Latest, Record, Store};

/// What to keep. Without an age and a size, all that is no project's last result goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRequest {
    /// Projects whose last results are kept whatever their age and size.
    pub roots: Vec<String>,
    /// Projects whose folders are not visible from here. That they are gone is a guess, so their last results are kept, too; only an age limits them.
    pub missing: Vec<String>,
    /// Projects whose folders are not visible and whose last results count as any other: the user said so.
    pub forgotten: Vec<String>,
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
    /// The list of a forgotten project's last results.
    Project,
}

/// Whose result an action is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub project: String,
    pub step: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.step, self.project)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcItem {
    pub part: Part,
    pub name: String,
    pub path: PathBuf,
    pub size_bytes: u64,
    pub why: &'static str,
    /// Of an action, if a project still lists it as its last or last but one.
    pub owner: Option<Owner>,
}

/// A project that is not visible from here, or whose results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcProject {
    pub name: String,
    pub fate: Fate,
    /// Last results that go, or that are kept.
    pub actions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Forgotten,
    /// Its folder is not visible, and some of its last results are too old.
    Aged,
    /// Its folder is not visible.
    Kept,
}

impl Fate {
    pub fn word(self) -> &'static str {
        match self {
            Fate::Forgotten => "forgotten",
            Fate::Aged => "aged",
            Fate::Kept => "kept",
        }
    }
}

impl fmt::Display for GcProject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GcProject { name, fate, actions } = self;
        match fate {
            Fate::Forgotten => write!(f, "forgets `{name}`: {actions} of its last results go"),
            Fate::Aged => {
                write!(f, "`{name}` is not visible from here: {actions} of its last results go, because nothing used them for too long")
            }
            Fate::Kept => {
                write!(f, "`{name}` is not visible from here: its {actions} last results stay (`--forget-missing` deletes them)")
            }
        }
    }
}

/// What will be deleted, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    pub items: Vec<GcItem>,
    /// Those whose last results go, and those that are not visible.
    pub projects: Vec<GcProject>,
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
                Part::Project => "project",
            };
            write!(f, "{part:<11} {:.12} {:>10}  {}", item.name, units::show_size(item.size_bytes), item.why)?;
            match &item.owner {
                Some(owner) => writeln!(f, ": {owner}")?,
                None => writeln!(f)?,
            }
        }
        for project in &self.projects {
            writeln!(f, "{project}")?;
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

/// How a record stands to the projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// A last result of a project that is here.
    Root,
    /// Only of projects that are not visible.
    Missing,
    Other,
}

impl Store {
    /// Decides what goes. Deletes nothing.
    pub fn plan_gc(&self, request: &GcRequest) -> Result<GcPlan> {
        let mut plan = GcPlan::default();
        let candidates = self.candidates(&mut plan)?;
        let projects = self.projects()?;
        let standings = standings(request, &projects);
        let owners = owners(&projects);
        let mut kept: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut spare = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for (candidate, standing) in ordered(candidates, &standings) {
            let new_bytes = candidate.size_bytes + unique_bytes(&candidate.record, &kept);
            match self.verdict(request, &candidate, standing, plan.kept_bytes.saturating_add(new_bytes)) {
                None => {
                    plan.kept_actions += 1;
                    plan.kept_bytes += new_bytes;
                    kept.extend(candidate.record.objects());
                    spare.extend((standing == Standing::Other).then_some(candidate.key));
                }
                Some(why) => {
                    gone.insert(candidate.key);
                    let item = self.item(Part::Action, "actions", candidate.key, candidate.size_bytes, why);
                    plan.items.push(GcItem { owner: owners.get(&candidate.key).cloned(), ..item });
                }
            }
        }
        for (object, size_bytes) in self.listed("objects")? {
            if !kept.contains_key(&object) {
                plan.items.push(self.item(Part::Object, "objects", object, size_bytes, "no kept action needs it"));
            }
        }
        self.plan_projects(request, &projects, &gone, &spare, &mut plan);
        self.plan_leftovers(request, &mut plan)?;
        plan.items.sort_by(|a, b| (a.part, &a.name).cmp(&(b.part, &b.name)));
        plan.freed_bytes = plan.items.iter().map(|item| item.size_bytes).sum();
        Ok(plan)
    }

    /// Why a record goes, if it does.
    fn verdict(&self, request: &GcRequest, candidate: &Candidate, standing: Standing, total_bytes: u64) -> Option<&'static str> {
        let is_old = |max: Duration| self.opened_ns() - candidate.used_ns > i128::try_from(max.as_nanos()).unwrap_or(i128::MAX);
        match (standing, request.max_age, request.max_size_bytes) {
            (Standing::Root, ..) => None,
            (_, Some(age), _) if is_old(age) => Some("not used for too long"),
            (Standing::Missing, ..) => None,
            (Standing::Other, None, None) => Some("no project needs it"),
            (Standing::Other, _, Some(size)) if total_bytes > size => Some("does not fit the size"),
            _ => None,
        }
    }

    /// Whose results go, and whose folders are not visible.
    fn plan_projects(
        &self,
        request: &GcRequest,
        projects: &Projects,
        gone: &BTreeSet<Digest>,
        spare: &BTreeSet<Digest>,
        plan: &mut GcPlan,
    ) {
        for (name, steps) in projects {
            let keys: BTreeSet<Digest> = steps.values().map(|latest| latest.key).collect();
            let lost = keys.intersection(gone).count() as u64;
            let fate = match (request.forgotten.contains(name), request.missing.contains(name)) {
                (true, _) => Fate::Forgotten,
                (_, true) if lost > 0 => Fate::Aged,
                (_, true) => Fate::Kept,
                _ => continue,
            };
            let actions = if fate == Fate::Kept { keys.len() as u64 } else { lost };
            plan.projects.push(GcProject { name: name.clone(), fate, actions });
            // Its list goes with the last result that only this project had.
            if fate == Fate::Forgotten && keys.is_disjoint(spare) {
                let path = self.latest_path(name);
                let size_bytes = bytes_at(&path);
                let why = "its last results go";
                plan.items.push(GcItem { part: Part::Project, name: name.clone(), path, size_bytes, why, owner: None });
            }
        }
    }

    fn candidates(&self, plan: &mut GcPlan) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for (key, size_bytes) in self.listed("actions")? {
            let path = self.shelf("actions", key);
            // Read before the record: a look at it counts as a use.
            let unread = |error| StoreError::io("read", &path, error);
            let meta = fs::symlink_metadata(&path).map_err(unread)?;
            let used_ns = stamp_ns(meta.mtime(), meta.mtime_nsec());
            // What cannot be read now may be read tomorrow: then nothing is deleted today.
            let bytes = fs::read(&path).map_err(unread)?;
            match Record::parse(&bytes).ok() {
                Some(record) if record.key == key && self.is_whole(&record)? => found.push(Candidate { key, used_ns, size_bytes, record }),
                _ => plan.items.push(self.item(Part::Action, "actions", key, size_bytes, "is damaged")),
            }
        }
        Ok(found)
    }

    fn is_whole(&self, record: &Record) -> Result<bool> {
        for (object, size_bytes) in record.objects() {
            if damage(self.check_present(object, size_bytes))?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn item(&self, part: Part, folder: &str, digest: Digest, size_bytes: u64, why: &'static str) -> GcItem {
        GcItem { part, name: digest.hex(), path: self.shelf(folder, digest), size_bytes, why, owner: None }
    }

    fn plan_leftovers(&self, request: &GcRequest, plan: &mut GcPlan) -> Result<()> {
        for (part, folder, names, why) in [
            (Part::Checkpoint, "partial", self.checkpoints()?, "its action is not running"),
            (Part::Quarantined, "quarantine", self.quarantined()?, "was found damaged"),
        ] {
            for name in names {
                let path = self.root().join(folder).join(&name);
                if part == Part::Checkpoint && self.is_young(&path, request.max_age) {
                    continue;
                }
                let size_bytes = bytes_at(&path);
                plan.items.push(GcItem { part, name, path, size_bytes, why, owner: None });
            }
        }
        for path in session::stale(&self.root().join("tmp"))? {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let size_bytes = bytes_at(&path);
            plan.items.push(GcItem { part: Part::Stale, name, path, size_bytes, why: "its process is gone", owner: None });
        }
        Ok(())
    }

    fn is_young(&self, path: &Path, max_age: Option<Duration>) -> bool {
        let (Some(age), Ok(meta)) = (max_age, fs::symlink_metadata(path)) else { return false };
        let age_ns = self.opened_ns() - stamp_ns(meta.mtime(), meta.mtime_nsec());
        age_ns <= i128::try_from(age.as_nanos()).unwrap_or(i128::MAX)
    }

    /// Deletes what the plan says; records before the objects that they need. What cannot be deleted is a warning ([`Store::take_warnings`]); where a
    /// record stays, so do its objects. Refused unless the store was opened alone.
    pub fn perform_gc(&self, plan: &GcPlan) -> Result<()> {
        if self.access != Access::Alone {
            return Err(StoreError::Busy { path: self.root().to_path_buf() });
        }
        let mut needed = Needed::Objects(BTreeSet::new());
        // What stands in the way of one removal need not stand in the way of the others.
        for item in plan.items.iter().filter(|item| item.part != Part::Stale) {
            let is_needed = item.part == Part::Object && needed.has(&item.name);
            if !is_needed && !self.remove(&item.path) && item.part == Part::Action {
                needed.add_record(&item.path);
            }
        }
        self.sweep();
        Ok(())
    }
}

/// What the records need that could not be deleted.
enum Needed {
    Objects(BTreeSet<String>),
    /// One of them cannot be read, either.
    Unknown,
}

impl Needed {
    fn has(&self, object: &str) -> bool {
        match self {
            Needed::Objects(objects) => objects.contains(object),
            Needed::Unknown => true,
        }
    }

    fn add_record(&mut self, path: &Path) {
        let Needed::Objects(objects) = self else { return };
        match fs::read(path).map(|bytes| Record::parse(&bytes)) {
            Ok(Ok(record)) => objects.extend(record.objects().map(|(object, _)| object.hex())),
            // A damaged record gives no result to anybody.
            Ok(Err(_)) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => *self = Needed::Unknown,
        }
    }
}

/// By project, its steps' last keys.
type Projects = BTreeMap<String, BTreeMap<String, Latest>>;

/// Of the records that are a project's last results.
fn standings(request: &GcRequest, projects: &Projects) -> BTreeMap<Digest, Standing> {
    let mut standings = BTreeMap::new();
    for (standing, names) in [(Standing::Missing, &request.missing), (Standing::Root, &request.roots)] {
        let keys = names.iter().filter_map(|name| projects.get(name)).flat_map(BTreeMap::values);
        standings.extend(keys.map(|latest| (latest.key, standing)));
    }
    standings
}

/// Who lists a record as its last result, or else as its last but one.
fn owners(projects: &Projects) -> BTreeMap<Digest, Owner> {
    let mut owners = BTreeMap::new();
    let listed = || projects.iter().flat_map(|(project, steps)| steps.iter().map(move |(step, latest)| (project, step, latest)));
    let owner = |project: &String, step: &String| Owner { project: project.clone(), step: step.clone() };
    for (project, step, latest) in listed() {
        owners.entry(latest.key).or_insert_with(|| owner(project, step));
    }
    for (project, step, latest) in listed() {
        if let Some(before) = latest.before {
            owners.entry(before).or_insert_with(|| owner(project, step));
        }
    }
    owners
}

/// Roots first, then the most recently used; equal times by key, so that a plan is the same twice.
fn ordered(candidates: Vec<Candidate>, standings: &BTreeMap<Digest, Standing>) -> Vec<(Candidate, Standing)> {
    let standing = |candidate: &Candidate| standings.get(&candidate.key).copied().unwrap_or(Standing::Other);
    let with_standing = |candidate: Candidate| {
        let standing = standing(&candidate);
        (candidate, standing)
    };
    let mut ordered: Vec<(Candidate, Standing)> = candidates.into_iter().map(with_standing).collect();
    ordered.sort_by_key(|(candidate, standing)| (*standing, -candidate.used_ns, candidate.key));
    ordered
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
    use crate::base::files;
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

        let aged = GcRequest { roots: roots.clone(), max_age: Some(30 * day), ..GcRequest::default() };
        assert_eq!(deleted(&store.plan_gc(&aged).unwrap(), Part::Action), names(&[old]));

        let sized = GcRequest { roots, max_size_bytes: Some(1), ..GcRequest::default() };
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
    fn where_a_record_stays_its_objects_stay() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open_alone(space.path()).unwrap();
        let (stays, goes) = (add(&store, "stays", &["a-stays", "shared"], 1), add(&store, "goes", &["b-goes", "shared"], 1));
        let mut needed = Needed::Objects(BTreeSet::new());
        needed.add_record(&store.shelf("actions", goes).with_extension("gone"));
        assert!(!needed.has(&Digest::of(b"shared").hex()), "a record that is gone needs nothing");
        needed.add_record(&store.shelf("actions", stays));
        for (content, is_needed) in [("a-stays", true), ("shared", true), ("b-goes", false)] {
            assert_eq!(needed.has(&Digest::of(content.as_bytes()).hex()), is_needed, "{content}");
        }
        // A folder cannot be read as a record: nobody knows what it needs.
        needed.add_record(space.path());
        assert!(needed.has(&Digest::of(b"b-goes").hex()));
    }

    #[test]
    fn leftovers_go_and_a_shared_store_deletes_nothing() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        fs::create_dir(store.partial(Digest::of(b"k"))).unwrap();
        fs::write(store.partial(Digest::of(b"k")).join("step-100"), "state").unwrap();
        fs::write(space.path().join("quarantine").join(format!("object-{}", Digest::of(b"x"))), "bad").unwrap();
        fs::create_dir(space.path().join("tmp/999-0")).unwrap();
        for name in ["partial/notes", "quarantine/notes", "quarantine/object-x"] {
            fs::write(space.path().join(name), "mine").unwrap();
        }
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
        assert_eq!(fs::read_to_string(space.path().join("partial/notes")).unwrap(), "mine");
        assert_eq!(files::names(&space.path().join("quarantine")).unwrap(), ["notes", "object-x"]);
    }

    #[test]
    fn results_of_a_project_out_of_sight_go_only_when_it_is_said() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open_alone(space.path()).unwrap();
        let (old, new) = (add(&store, "old", &["a"], 40), add(&store, "new", &["b"], 1));
        let steps = BTreeMap::from([("one".to_string(), old), ("two".to_string(), new)]);
        store.set_latest("/mnt/away", &steps).unwrap();
        let missing = vec!["/mnt/away".to_string()];
        let request = GcRequest { missing: missing.clone(), ..GcRequest::default() };
        let gone = |request: &GcRequest| {
            let plan = store.plan_gc(request).unwrap();
            let owners: Vec<String> = plan.items.iter().filter_map(|item| item.owner.as_ref().map(Owner::to_string)).collect();
            (deleted(&plan, Part::Action).len(), owners, plan)
        };
        let (count, _, plan) = gone(&request);
        assert_eq!((count, plan.items.len()), (0, 0));
        assert!(plan.to_string().contains("`/mnt/away` is not visible from here: its 2 last results stay"), "{plan}");
        // A size does not say it, an age does.
        assert_eq!(gone(&GcRequest { max_size_bytes: Some(1), ..request.clone() }).0, 0);
        let age = Some(Duration::from_secs(30 * 86_400));
        let (_, owners, plan) = gone(&GcRequest { max_age: age, max_size_bytes: Some(1), ..request });
        assert_eq!(owners, ["one of /mnt/away"]);
        assert!(plan.to_string().contains("1 of its last results go, because nothing used them for too long"), "{plan}");
        let (_, owners, plan) = gone(&GcRequest { forgotten: missing, ..GcRequest::default() });
        assert_eq!(owners.len(), 2);
        assert!(plan.to_string().contains("forgets `/mnt/away`: 2 of its last results go"), "{plan}");
        store.perform_gc(&plan).unwrap();
        assert!(store.projects().unwrap().is_empty());
    }
}
