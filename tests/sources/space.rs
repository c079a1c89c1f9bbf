//! A project with one source, and how it is planned.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slmops::base::Diagnostic;
use slmops::manifest::Lock;
use slmops::plan::{self, Node, Options};
use slmops::source::{Fetch, News, Remote, Watch};

pub struct Space {
    folder: tempfile::TempDir,
    pub remote: Remote,
    heard: Arc<Heard>,
}

/// What was told while something was fetched.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn hear(&self, news: &News) {
        self.0.lock().unwrap().push(format!("{news:?}"));
    }
}

impl Space {
    pub fn new(source: &str) -> Space {
        let heard = Arc::new(Heard::default());
        let remote = Remote { watch: heard.clone(), pause: Duration::from_millis(1), ..Remote::default() };
        let space = Space { folder: tempfile::tempdir().unwrap(), remote, heard };
        space.manifest(source);
        space
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn manifest(&self, source: &str) {
        let text = format!("slmops = 1\n[project]\nname = \"t\"\n[source]\na = {source}\n");
        fs::write(self.path().join("slmops.toml"), text).unwrap();
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn options(&self, fetch: Fetch) -> Options<'static> {
        Options { fetch, remote: self.remote.clone(), ..Options::default() }
    }

    pub fn lock(&self) -> Result<Lock, Vec<Diagnostic>> {
        plan::lock(self.path(), &self.options(Fetch::Pinned))
    }

    /// The one diagnostic that pinning comes to.
    pub fn lock_fails(&self) -> Diagnostic {
        let mut errors = self.lock().unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.remove(0)
    }

    pub fn check(&self) -> Result<(), Vec<Diagnostic>> {
        plan::check_locked(self.path(), &self.options(Fetch::Never))
    }

    pub fn plan(&self, fetch: Fetch) -> Result<PathBuf, Diagnostic> {
        let plan = plan::load(self.path(), &self.options(fetch)).map_err(|mut errors| errors.remove(0))?;
        let Some(Node::Source(source)) = plan.nodes.first() else { panic!("no source") };
        Ok(source.path.clone())
    }

    pub fn fetched(&self) -> PathBuf {
        self.plan(Fetch::Pinned).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub fn forget(&self) {
        fs::remove_dir_all(self.path().join("cache")).unwrap();
    }

    pub fn news(&self) -> String {
        std::mem::take(&mut *self.heard.0.lock().unwrap()).join("\n")
    }

    /// Names of fetched files, complete ones and beginnings.
    pub fn blobs(&self) -> Vec<String> {
        let folder = self.path().join("cache/sources/blobs");
        slmops::base::files::names(&folder).unwrap_or_default().iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

/// Every file below a folder with its text.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = slmops::base::files::walk(folder).unwrap();
    names.iter().map(|name| (name.to_string_lossy().into_owned(), fs::read(folder.join(name)).unwrap())).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no two places of a file share.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
