//! A Hub with one repository: its interface, its files, and large files on another server, as huggingface.co has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::server::{Answer, Asked, Server};
use crate::space::sha256;

/// Larger ones are kept elsewhere.
const LARGE: usize = 1000;
const PAGE: usize = 3;

#[derive(Default)]
pub struct State {
    /// Commits by name of branch.
    pub branches: BTreeMap<String, String>,
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Added to every listing as it is.
    pub listed: Vec<String>,
    /// What is answered before anything else, by a part of the path.
    pub faults: Vec<(String, VecDeque<Answer>)>,
    /// A token that files need.
    pub gate: Option<String>,
    /// Served in place of what was listed.
    pub forged: BTreeMap<String, Vec<u8>>,
}

pub struct Hub {
    pub server: Server,
    /// Where large files are.
    pub store: Server,
    pub state: Arc<Mutex<State>>,
}

pub const NAME: &str = "org/tiny";

impl Hub {
    pub fn of_models() -> Hub {
        Hub::start("")
    }

    pub fn start(prefix: &'static str) -> Hub {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, kept) = (state.clone(), state.clone());
        let store = Server::start(move |asked| stored(&kept.lock().unwrap(), asked).unwrap_or_else(|| Answer::of(404, "")));
        let elsewhere = store.url.clone();
        let server = Server::start(move |asked| {
            let mut state = shared.lock().unwrap();
            let fault = state.faults.iter_mut().find(|(part, left)| asked.path.contains(part.as_str()) && !left.is_empty());
            if let Some(answer) = fault.and_then(|(_, left)| left.pop_front()) {
                return answer;
            }
            answer(&state, asked, prefix, &elsewhere)
        });
        Hub { server, store, state }
    }

    /// A new commit on a branch.
    pub fn commit(&self, branch: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.state.lock().unwrap();
        let commit = sha256(format!("{branch} {}", state.commits.len()).as_bytes())[..40].to_string();
        let files = files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect();
        state.commits.insert(commit.clone(), files);
        state.branches.insert(branch.to_string(), commit.clone());
        commit
    }

    pub fn fault(&self, part: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().faults.push((part.to_string(), answers.into_iter().collect()));
    }
}

/// A model with what usually lies beside it.
pub fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.safetensors filter=lfs".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", crate::space::noise(50_000)),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("sub folder/tok\u{e4}nizer.json", b"[1]".to_vec()),
    ]
}

fn answer(state: &State, asked: &Asked, prefix: &str, store: &str) -> Answer {
    let kind = if prefix.is_empty() { "models" } else { "datasets" };
    let (api, resolve) = (format!("/api/{kind}/{NAME}/"), format!("{prefix}/{NAME}/resolve/"));
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    if let Some(revision) = path.strip_prefix(&format!("{api}revision/")) {
        let revision = revision.replace("%2F", "/");
        let found = state.branches.get(&revision).or_else(|| state.commits.get_key_value(&revision).map(|(commit, _)| commit));
        return match found {
            Some(commit) => Answer::of(200, format!("{{\"id\": \"{NAME}\", \"sha\": \"{commit}\", \"siblings\": []}}")),
            None => Answer::of(404, "").header("X-Error-Code", "RevisionNotFound").header("X-Error-Message", "Invalid rev id"),
        };
    }
    if let Some(files) = path.strip_prefix(&format!("{api}tree/")).and_then(|commit| state.commits.get(commit)) {
        return listing(state, files, &asked.path, query);
    }
    let file = path.strip_prefix(&resolve).and_then(|rest| {
        let (commit, file) = rest.split_once('/')?;
        state.commits.get(commit)?.get_key_value(&decoded(file))
    });
    let Some((name, bytes)) = file else {
        return Answer::of(404, "").header("X-Error-Code", "RepoNotFound").header("X-Error-Message", "Repository not found");
    };
    if state.gate.as_deref().is_some_and(|token| asked.header("authorization") != Some(&format!("Bearer {token}"))) {
        let status = if asked.header("authorization").is_some() { 403 } else { 401 };
        return Answer::of(status, "").header("X-Error-Code", "GatedRepo").header("X-Error-Message", "Access to it is restricted.");
    }
    if bytes.len() >= LARGE {
        return Answer::of(302, "").header("Location", format!("{store}/{}?signed=yes", sha256(bytes)));
    }
    Answer::ranged(asked, state.forged.get(name).unwrap_or(bytes))
}

/// A few files a page.
fn listing(state: &State, files: &BTreeMap<String, Vec<u8>>, path: &str, query: &str) -> Answer {
    let mut items = vec!["{\"type\": \"directory\", \"oid\": \"x\", \"size\": 0, \"path\": \"sub folder\"}".to_string()];
    for (path, bytes) in files {
        let large = if bytes.len() >= LARGE {
            format!(", \"lfs\": {{\"oid\": \"{}\", \"size\": {}, \"pointerSize\": 130}}", sha256(bytes), bytes.len())
        } else {
            String::new()
        };
        let oid = git2::Oid::hash_object(git2::ObjectType::Blob, bytes).unwrap();
        let path = serde_json::Value::from(path.as_str());
        items.push(format!("{{\"type\": \"file\", \"oid\": \"{oid}\", \"size\": {}{large}, \"path\": {path}}}", bytes.len()));
    }
    items.extend(state.listed.iter().cloned());
    let start: usize = query.split('&').find_map(|part| part.strip_prefix("cursor=")).map_or(0, |cursor| cursor.parse().unwrap());
    let page: Vec<String> = items.iter().skip(start).take(PAGE).cloned().collect();
    let answer = Answer::of(200, format!("[{}]", page.join(", ")));
    if start + PAGE >= items.len() {
        return answer;
    }
    let next = format!("{}?recursive=true&cursor={}", path.split('?').next().unwrap(), start + PAGE);
    answer.header("Link", format!("<{next}>; rel=\"next\""))
}

fn stored(state: &State, asked: &Asked) -> Option<Answer> {
    let digest = asked.path.strip_prefix('/')?.strip_suffix("?signed=yes")?;
    let (name, bytes) = state.commits.values().flatten().find(|(_, bytes)| sha256(bytes) == digest)?;
    Some(Answer::ranged(asked, state.forged.get(name).unwrap_or(bytes)))
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
